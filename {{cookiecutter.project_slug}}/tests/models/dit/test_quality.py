"""How generated images are measured, against the same numbers computed here."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from torch import Tensor
from torchmetrics.image import fid

import evaluate
from {{cookiecutter.package_name}} import train as fit
from {{cookiecutter.package_name}}.config import compose, recompose
from {{cookiecutter.package_name}}.data.images import Digits, Images
from {{cookiecutter.package_name}}.models.dit import features as quality_features
from {{cookiecutter.package_name}}.models.dit.features import Classifier, make_features, read_moments
from {{cookiecutter.package_name}}.models.dit.module import DiTModule
from {{cookiecutter.package_name}}.models.dit.quality import FrechetDistance, Quality
from {{cookiecutter.package_name}}.runs import saved_checkpoint
from {{cookiecutter.package_name}}.train import build_data

from ...runs import Start, Tiny
from .tiny import TINY, write_images


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return TINY


@pytest.fixture(scope="module")
def digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels from 0 to 1 (N, 64) and classes of train, val and test."""
    data = build_data(compose(TINY.argv))
    assert isinstance(data, Images)
    found = {}
    for name, (source, indices) in data.splits.items():
        assert isinstance(source.dataset, Digits)
        found[name] = (source.dataset.data[indices].reshape(-1, 64) / 255, source.targets[indices])
    return found


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    means, (a, b) = one.mean(0) - other.mean(0), (np.cov(values.T) for values in (one, other))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    roots = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0))
    return float(means @ means + np.trace(a + b) - 2 * roots.sum())


def spoil(monkeypatch: pytest.MonkeyPatch, images: Tensor, classes: Tensor) -> list[tuple[list[int], list[int]]]:
    """Lets the net draw `images`, whatever it is asked for; returns what was asked."""
    asked: list[tuple[list[int], list[int]]] = []

    def generate(module: DiTModule, labels: list[int], seeds: list[int], steps: int, **how: Any) -> Any:
        asked.append((labels, seeds))
        rows = [int((classes == label).nonzero()[number // 10]) for number, label in enumerate(labels)]
        return iter((images[rows] * 2 - 1).reshape(-1, 1, 8, 8).split(7))

    monkeypatch.setattr(DiTModule, "generate", generate)
    return asked


def test_the_distance_and_the_share_by_hand(
    start: Start, monkeypatch: pytest.MonkeyPatch, digits: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    pixels, classes = (torch.from_numpy(array) for array in digits["val"])
    pixels = pixels.float()
    asked = spoil(monkeypatch, pixels, classes)
    _, values = start("task.quality.n=40", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    labels = [number % 10 for number in range(40)]
    assert [one for one, _ in asked] == [labels, labels], "after the validation and after the test"
    assert not set(asked[0][1]) & set(asked[1][1]), "from other noise"
    drawn = pixels[[int((classes == label).nonzero()[number // 10]) for number, label in enumerate(labels)]]
    expected = frechet(16 * drawn.double().numpy(), 16 * digits["train"][0])
    assert values["test/fd_40"] == values["val/fd_40"] == pytest.approx(expected, rel=1e-3)
    assert values["test/asked_class"] >= 0.95, "they are real digits"


def test_wrong_classes_are_seen(
    start: Start, monkeypatch: pytest.MonkeyPatch, digits: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    pixels, classes = (torch.from_numpy(array) for array in digits["val"])
    spoil(monkeypatch, pixels.float(), (classes + 1) % 10)
    _, values = start("task.quality.n=40", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    assert values["test/asked_class"] <= 0.05


def test_the_classifier_reads_what_it_was_not_fitted_to(digits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    machine = Classifier(*(torch.from_numpy(array) for array in digits["train"]))
    pixels, classes = digits["test"]
    assert machine.count(torch.from_numpy(pixels), classes.tolist()) >= 0.95 * len(pixels)


def test_evaluate_measures_them_too(start: Start, tmp_path: Path) -> None:
    run, values = start("trainer.max_epochs=1")
    file, config = saved_checkpoint(run)
    cfg = recompose(config, ["data.total_batch_size=7"], anew=("data",), free=("data",))
    again = fit.evaluate(cfg, file, "test")
    for tag in ("test/fd_24", "test/asked_class", "test/loss"):
        assert again[tag] == pytest.approx(values[tag], rel=1e-4), "whatever the batch"


def test_a_run_is_measured_again_in_another_way(start: Start) -> None:
    run, values = start("trainer.max_epochs=1")
    ways = [[], ["task.quality.sampler=euler"], ["task.quality.guidance=3"], ["task.quality.steps=4"]]
    ways += [["task.quality.guidance=3", "task.quality.interval=[0.6,0.9]"]]  # where none of two steps begins
    distances = [evaluate.main([f"checkpoint={run}", *way])["test/fd_24"] for way in ways]
    assert distances[0] == distances[4] == pytest.approx(values["test/fd_24"])
    assert len(set(distances)) == 4
    assert "test/fd_30" in evaluate.main([f"checkpoint={run}", "task.quality.n=30"])
    with pytest.raises(ValueError, match=r"task\.label_dropout=0\.5: an earlier run keeps its own"):
        evaluate.main([f"checkpoint={run}", "task.label_dropout=0.5"])  # or any net could be guided


def test_off_and_not_after_validations(start: Start) -> None:
    _, values = start("task.quality.n=0", "trainer.max_epochs=1")
    assert not [tag for tag in values if "fd_" in tag]
    _, values = start("task.quality.validate=false", "trainer.max_epochs=1")
    assert [tag for tag in values if "fd_" in tag] == ["test/fd_24"]


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "test_vit.pt")
    return str(tmp_path / "test_vit.pt")


def test_features_of_a_timm_model(weights: str) -> None:
    features = make_features("test_vit", weights, 0)
    assert isinstance(features, quality_features.TimmFeatures)
    net = timm.create_model("test_vit", checkpoint_path=weights).eval()
    images = torch.rand(3, 3, *features.size)
    expected = net.forward_head(net.forward_features((images - 0.5) / 0.5), pre_logits=True)
    torch.testing.assert_close(features(images), expected)
    assert features.num_features == expected.shape[1]
    assert features(torch.rand(2, 1, 8, 8)).shape == (2, features.num_features), "grey and small ones too"


def test_a_tilde_is_the_home_folder(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    np.savez(tmp_path / "real.npz", mu=np.ones(2), sigma=np.eye(2))
    assert read_moments("~/real.npz")[0].tolist() == [2, 2]
    with pytest.raises(ValueError, match=r"weights=~/none\.pt: there is no such file"):
        make_features("test_vit", "~/none.pt", 0)
    images = torch.rand(2, 3, 8, 8)
    whole = make_features("test_vit", weights, 0)(images)
    torch.testing.assert_close(make_features("test_vit", "~/test_vit.pt", 0)(images), whole)


def test_inception_wants_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fid, "_TORCH_FIDELITY_AVAILABLE", False)  # torchmetrics looks when it is imported
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ValueError, match="uv sync --extra fid"):
        make_features("inception", str(tmp_path / "weights.pth"), 0)


def test_statistics_of_real_images_are_kept(start: Start, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = quality_features.TimmFeatures.forward

    def count(features: quality_features.TimmFeatures, images: Tensor) -> Tensor:
        seen.append(len(images))
        return forward(features, images)

    monkeypatch.setattr(quality_features.TimmFeatures, "forward", count)
    argv = ["task.quality.features=test_vit", f"task.quality.weights={weights}", "trainer.max_epochs=1"]
    argv += ["trainer.limit_train_batches=1", "data.val_fraction=0.9"]
    run, first = start(*argv)
    training = sum(seen) - 2 * 24
    assert training > 80, "the training images once"
    seen.clear()
    _, again = start(*argv)
    assert sum(seen) == 2 * 24, "and then never again"
    assert again["test/fd_24"] == pytest.approx(first["test/fd_24"], rel=1e-5)
    assert len(list((run.parent / ".statistics").iterdir())) == 1
    seen.clear()
    torch.save(timm.create_model("test_vit").state_dict(), weights)
    start(*argv)
    assert sum(seen) == training + 2 * 24, "but by other weights under the same name"


def test_statistics_of_fewer_images_are_not_taken(start: Start, weights: str, tmp_path: Path) -> None:
    """Images that came to a folder do not show in the config."""
    argv = ["data=folder", f"data.root={tmp_path / 'images'}", "data.img_size=8", "data.workers=0", "trainer=cpu"]
    argv += ["data.total_batch_size=4", "task.quality.classifier=none", "task.quality.features=test_vit"]
    argv += [f"task.quality.weights={weights}", "task.quality.n=4", "trainer.max_epochs=1", "task.samples.n=0"]
    counts = []
    for images in (16, 24):
        write_images(tmp_path / "images", {"train": images, "val": 4})
        run, _ = start(*argv, "data.test_fraction=0.25", "trainer.limit_train_batches=1")
        (kept,) = (run.parent / ".statistics").iterdir()
        counts.append(torch.load(kept, weights_only=True)[2].item())
    assert counts == [12, 18]


def test_moments_from_a_file(start: Start, tmp_path: Path, digits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    levels = 16 * digits["train"][0]
    np.savez(tmp_path / "real.npz", mu=levels.mean(0), sigma=np.cov(levels.T))
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    _, values = start(*short)
    _, again = start(*short, f"task.quality.real={tmp_path / 'real.npz'}")
    assert again["test/fd_24"] == pytest.approx(values["test/fd_24"], rel=1e-4)


def test_features_that_are_more_than_timm_counts(tmp_path: Path) -> None:
    """Of mobilenetv3, 1024 come out where num_features says 576."""
    torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), tmp_path / "net.pt")
    features = make_features("mobilenetv3_small_050", str(tmp_path / "net.pt"), 0)
    assert features(torch.rand(2, 1, 8, 8)).shape == (2, features.num_features)


def test_half_a_file_of_statistics_is_measured_anew(start: Start, weights: str) -> None:
    argv = ["task.quality.features=test_vit", f"task.quality.weights={weights}", "trainer.max_epochs=1"]
    argv += ["trainer.limit_train_batches=1", "data.val_fraction=0.9", "task.quality.validate=false"]
    run, first = start(*argv)
    (kept,) = (run.parent / ".statistics").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    _, again = start(*argv)
    assert again["test/fd_24"] == pytest.approx(first["test/fd_24"], rel=1e-5)


def test_features_are_not_computed_in_the_nets_precision(
    start: Start, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    forward = quality_features.TimmFeatures.forward

    def look(features: quality_features.TimmFeatures, images: Tensor) -> Tensor:
        seen.add(torch.is_autocast_enabled("cpu"))
        return forward(features, images)

    monkeypatch.setattr(quality_features.TimmFeatures, "forward", look)
    argv = ["task.quality.features=test_vit", f"task.quality.weights={weights}", "trainer.max_epochs=1"]
    start(*argv, "trainer.limit_train_batches=1", "data.val_fraction=0.9", "trainer.precision=bf16-mixed")
    assert seen == {False}


def test_refusals_leave_no_run(start: Start, tmp_path: Path) -> None:
    np.savez(tmp_path / "three.npz", mu=np.zeros(3), sigma=np.zeros((3, 3)))
    for argv, words in [
        ([f"task.quality.real={tmp_path / 'three.npz'}"], "it has 3 features, and those of pixels are 64"),
        (["task.quality.guidance=2", "task.label_dropout=0.0"], "task.quality.guidance=2"),
    ]:
        with pytest.raises(ValueError, match=words):
            start(*argv)
    assert not (tmp_path / "runs").exists()


def test_refusals(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    (tmp_path / "half.npz").write_bytes((tmp_path / "bad.npz").read_bytes()[:200])  # still begins as a zip file does
    (tmp_path / "empty.npz").touch()
    for name in ("bad", "half", "empty", "none"):
        with pytest.raises(ValueError, match="expected an npz file of mu"):
            read_moments(str(tmp_path / f"{name}.npz"))
    with pytest.raises(ValueError, match="there is no such file"):
        make_features("inception", str(tmp_path / "none.pth"), 0)
    with pytest.raises(ValueError, match="150528"):
        make_features("pixels", "", 3 * 224 * 224)
    trainer = SimpleNamespace(world_size=5, datamodule=SimpleNamespace(sizes={"train": 10}))
    with pytest.raises(ValueError, match="n=4: 5 devices"):
        Quality(lambda x: x, (1, 8, 8), n=4).setup(cast(Any, trainer), cast(Any, None), "fit")


def test_no_eigenvalues_of_what_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.linalg.eigvals of NaN ends the process in torch 2.15 with MKL."""
    metric = FrechetDistance(make_features("pixels", "", 4))
    for real, images in ((True, torch.rand(8, 1, 2, 2)), (False, torch.full((8, 1, 2, 2), torch.nan))):
        metric.update(images, real=real)
    monkeypatch.delattr(torch.linalg, "eigvals")
    assert metric.compute().isnan()
