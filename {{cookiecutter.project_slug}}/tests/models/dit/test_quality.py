"""How generated images are measured, against the same numbers computed here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor
from torchmetrics.image import fid

import evaluate
from {{cookiecutter.package_name}} import train as fit
from {{cookiecutter.package_name}}.config import compose, recompose
from {{cookiecutter.package_name}}.data.image_sources import Digits
from {{cookiecutter.package_name}}.data.images import Images
from {{cookiecutter.package_name}}.models.dit.features import TimmFeatures, make_features
from {{cookiecutter.package_name}}.models.dit.quality import FrechetDistance
from {{cookiecutter.package_name}}.models.dit.sampling import Sampler
from {{cookiecutter.package_name}}.runs import saved_checkpoint
from {{cookiecutter.package_name}}.train import build_data

from ...runs import Start, Tiny
from .tiny import TINY


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
    """Lets the model draw `images`, whatever it is asked for; returns what was asked."""
    asked: list[tuple[list[int], list[int]]] = []

    def generate(sampler: Sampler, labels: list[int], seeds: list[int], batch_size: int) -> Any:
        asked.append((labels, seeds))
        rows = [int((classes == label).nonzero()[number // 10]) for number, label in enumerate(labels)]
        return iter((images[rows] * 2 - 1).reshape(-1, 1, 8, 8).split(7))

    monkeypatch.setattr(Sampler, "generate", generate)
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


@pytest.mark.slow
def test_a_run_is_measured_again_in_another_way(start: Start) -> None:
    run, values = start("trainer.max_epochs=1", "task.quality.validate=false")
    options = [[], ["sampler=euler"], ["guidance=3"], ["guidance=3", "interval=[0.6,0.9]"], ["n=30"]]
    found = [evaluate.main([f"checkpoint={run}", *(f"task.quality.{one}" for one in way)]) for way in options]
    distances = [one["test/fd_24"] for one in found[:4]]
    assert distances[0] == distances[3] == pytest.approx(values["test/fd_24"]), "no step begins in the interval"
    assert len(set(distances)) == 3
    assert "test/fd_30" in found[4]
    with pytest.raises(ValueError, match=r"task\.label_dropout"):
        evaluate.main([f"checkpoint={run}", "task.label_dropout=0.5"])


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "test_vit.pt")
    return str(tmp_path / "test_vit.pt")


def test_features_of_a_timm_model(weights: str) -> None:
    features = make_features("test_vit", weights, 0)
    assert isinstance(features, TimmFeatures)
    model = timm.create_model("test_vit", checkpoint_path=weights).eval()
    images = torch.rand(3, 3, *features.size)
    expected = model.forward_head(model.forward_features((images - 0.5) / 0.5), pre_logits=True)
    torch.testing.assert_close(features(images), expected)
    assert features.num_features == expected.shape[1]
    assert features(torch.rand(2, 1, 8, 8)).shape == (2, features.num_features), "grey and small ones too"


def test_no_eigenvalues_of_what_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.linalg.eigvals of NaN ends the process in torch 2.15 with MKL."""
    metric = FrechetDistance(make_features("pixels", "", 4))
    for real, images in ((True, torch.rand(8, 1, 2, 2)), (False, torch.full((8, 1, 2, 2), torch.nan))):
        metric.update(images, real=real)
    monkeypatch.delattr(torch.linalg, "eigvals")
    assert metric.compute().isnan()


def test_evaluate_measures_them_too(start: Start) -> None:
    run, values = start("trainer.max_epochs=1", "task.quality.validate=false")
    assert [tag for tag in values if "fd_" in tag] == ["test/fd_24"]
    file, config = saved_checkpoint(run)
    cfg = recompose(config, ["data.total_batch_size=7"], anew=("data",), free=("data",))
    again = fit.evaluate(cfg, file, "test")
    for tag in ("test/fd_24", "test/asked_class", "test/loss"):
        assert again[tag] == pytest.approx(values[tag], rel=1e-4), "whatever the batch"


def test_features_in_fp32_of_a_timm_model_in_a_run(start: Start, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = TimmFeatures.forward

    def check(features: TimmFeatures, images: Tensor) -> Tensor:
        assert not torch.is_autocast_enabled("cpu")
        return forward(features, images)

    monkeypatch.setattr(TimmFeatures, "forward", check)
    argv = ["task.quality.features=test_vit", f"task.quality.weights={weights}", "trainer.precision=bf16-mixed"]
    argv += ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "data.val_fraction=0.9"]
    _, values = start(*argv, "task.quality.validate=false")
    assert values["test/fd_24"] > 0


def test_moments_from_a_file(start: Start, tmp_path: Path, digits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    levels = 16 * digits["train"][0]
    np.savez(tmp_path / "real.npz", mu=levels.mean(0), sigma=np.cov(levels.T))
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "task.quality.validate=false"]
    _, values = start(*short)
    _, again = start(*short, f"task.quality.real={tmp_path / 'real.npz'}")
    assert again["test/fd_24"] == pytest.approx(values["test/fd_24"], rel=1e-4)


def test_refusals(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "three.npz", mu=np.zeros(3), sigma=np.zeros((3, 3)))
    for option in (f"task.quality.real={tmp_path / 'three.npz'}", "task.quality.guidance=2"):
        with pytest.raises(ValueError, match=r"features|guidance"):
            start(option, "task.label_dropout=0.0")
    assert not (tmp_path / "runs").exists()
    np.savez(tmp_path / "bad.npz", mu=np.zeros(3), sigma=np.zeros((2, 2)))
    (tmp_path / "half.npz").write_bytes((tmp_path / "bad.npz").read_bytes()[:200])  # still begins as a zip file does
    for name in ("bad", "half", "none"):
        with pytest.raises(ValueError, match="npz"):
            FrechetDistance(make_features("pixels", "", 3), str(tmp_path / f"{name}.npz"))
    monkeypatch.setattr(fid, "_TORCH_FIDELITY_AVAILABLE", False)  # torchmetrics looks when it is imported
    (tmp_path / "weights.pth").touch()
    for name, words in (("none", "no such file"), ("weights", "extra fid")):
        with pytest.raises(ValueError, match=words):
            make_features("inception", str(tmp_path / f"{name}.pth"), 0)
