"""What is particular to whole runs of a DiT."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.models.dit.module import BINS, DiTModule, by_quarters
from {{cookiecutter.package_name}}.models.dit.sampling import draw_noise
from {{cookiecutter.package_name}}.train import build_module

from ...runs import Start, Tiny, rows
from .tiny import TINY, write_images


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return TINY


def test_the_loss_by_quarters_of_time(start: Start) -> None:
    run, values = start("trainer.max_epochs=1")
    curves: dict[str, list[float]] = {}
    for _, tag, value in rows(run):
        curves.setdefault(tag, []).append(value)
    parts = [curves[f"loss_by_time/val_{name}"][-1] for name in BINS]
    assert values["val/loss"] == pytest.approx(sum(parts) / 4, rel=0.02), "times are spread evenly"
    assert {f"loss_by_time/train_{name}" for name in BINS} <= set(curves)
    assert all(map(math.isfinite, [value for curve in curves.values() for value in curve]))


@pytest.mark.parametrize("argv", [[], ["trainer.val_every_n_steps=2", "data.batch_size=8"]], ids=str)
def test_every_loss_of_a_validation_stands_at_one_step(start: Start, argv: list[str]) -> None:
    run, _ = start("trainer.limit_train_batches=8", "task.quality.n=0", "task.monitor=val/loss", *argv)
    steps: dict[str, list[int]] = {}
    for step, tag, _ in rows(run):
        steps.setdefault(tag, []).append(step)
    assert len(steps["val/loss"]) == 2
    for name in BINS:
        assert steps[f"loss_by_time/val_{name}"] == steps["val/loss"]
        assert set(steps[f"loss_by_time/train_{name}"]) <= set(steps["train/loss"])


def test_diffusion_in_a_thousand_steps(start: Start) -> None:
    """The net learns the noise: without that its loss would stay above 1, and there is the bound's share besides."""
    pytest.importorskip("diffusers")
    run, values = start("objective=ddpm", *TINY.training, "monitor.every_n_steps=0")
    assert values["val/loss"] < 0.9
    assert all(math.isfinite(value) for _, _, value in rows(run))
    assert "test/fd_24" in values
    assert all((run / f"{name}.png").is_file() for name in ("samples", "trajectory"))


def test_images_of_one_s_own(start: Start, tmp_path: Path) -> None:
    """They are seen whole, and from -1 to 1, which a net can draw."""
    write_images(tmp_path / "images", {"train": 40})
    argv = ["data=folder", f"data.root={tmp_path / 'images'}", "data.img_size=8", "data.workers=0"]
    argv += ["data.val_fraction=0.1", "data.test_fraction=0.1"]
    cfg = compose([*TINY.argv, *argv])
    assert (cfg.data.mean, cfg.data.std, cfg.data.crop_pct) == ([0.5], [0.5], 1.0)
    assert (cfg.data.augment.scale, cfg.data.augment.color_jitter) == ([1.0, 1.0], 0.0)
    run, values = start(*argv, "task.quality.n=10")
    assert {"test/loss", "test/fd_10"} <= values.keys()
    assert "test/asked_class" not in values, "which is for digits"
    with Image.open(run / "samples.png") as picture:
        assert picture.mode == "RGB"


def test_quarters_by_hand() -> None:
    t, losses = torch.tensor([0.0, 0.1, 0.25, 0.99, 1.0]), torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    sums, numbers = by_quarters(losses, t)
    assert (sums.tolist(), numbers.tolist()) == ([3, 4, 0, 24], [2, 1, 0, 2])


def test_labels_are_dropped_in_training_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[bool, list[int]] = {True: [], False: []}
    from {{cookiecutter.package_name}}.models.dit.model import DiT

    forward = DiT.forward

    def look(net: DiT, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen[net.training] += (labels == 10).tolist()
        return forward(net, x, t, labels)

    monkeypatch.setattr(DiT, "forward", look)
    start("task.label_dropout=0.3", "ema.decay=0.0", "monitor.every_n_steps=0")
    dropped = sum(seen[True]) / len(seen[True])
    assert abs(dropped - 0.3) < 4 * math.sqrt(0.21 / len(seen[True]))
    assert not any(seen[False])


def test_noise_belongs_to_a_sample_and_not_to_its_batch() -> None:
    uniform, noise = draw_noise(range(6), (1, 8, 8))
    for seed in range(6):
        alone = draw_noise([seed], (1, 8, 8))
        assert torch.equal(alone[0][0], uniform[seed])
        assert torch.equal(alone[1][0], noise[seed])
    assert noise.unique().numel() == noise.numel()


def test_times_of_evaluation_are_spread_evenly() -> None:
    task = build_module(compose([*TINY.argv, "data.num_classes=10"]))
    assert isinstance(task, DiTModule)
    t, _ = task._evaluation_noise(torch.zeros(40, 1, 8, 8), range(40))
    assert (t.sort().values - torch.arange(40) / 40).abs().max() < 0.05


def test_what_batch_norm_mixes_is_said_once(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    start("norm=bn", "trainer.max_epochs=1")
    assert capsys.readouterr().out.count("its statistics are over samples with and without a class together") == 1
    start("norm=bn", "task.label_dropout=0.0", "trainer.max_epochs=1")
    assert "without a class together" not in capsys.readouterr().out
