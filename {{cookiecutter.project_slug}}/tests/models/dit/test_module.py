"""What is particular to whole runs of a DiT."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.models.dit.model import DiT
from {{cookiecutter.package_name}}.models.dit.module import BINS

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


def test_diffusion_in_a_thousand_steps(start: Start) -> None:
    """The model learns the noise: without that its loss would stay above 1, and there is the bound's share besides."""
    pytest.importorskip("diffusers")
    run, values = start("objective=ddpm", *TINY.training, "monitor.every_n_steps=0")
    assert values["val/loss"] < 0.9
    assert all(math.isfinite(value) for _, _, value in rows(run))
    assert "test/fd_24" in values
    assert all((run / f"{name}.png").is_file() for name in ("samples", "trajectory"))


def test_images_of_one_s_own(start: Start, tmp_path: Path) -> None:
    """They are seen whole, and from -1 to 1, which a model can draw."""
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


def test_labels_are_dropped_in_training_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[bool, list[int]] = {True: [], False: []}
    forward = DiT.forward

    def keep(model: DiT, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen[model.training] += (labels == 10).tolist()
        return forward(model, x, t, labels)

    monkeypatch.setattr(DiT, "forward", keep)
    start("task.label_dropout=0.3", "ema.decay=0.0", "monitor.every_n_steps=0")
    dropped = sum(seen[True]) / len(seen[True])
    assert abs(dropped - 0.3) < 4 * math.sqrt(0.21 / len(seen[True]))
    assert not any(seen[False])


def test_batch_norm_with_dropped_labels_gets_one_warning(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    for dropout, warnings in ((0.1, 1), (0.0, 0)):
        start("norm=bn", f"task.label_dropout={dropout}", "trainer.max_epochs=1")
        assert capsys.readouterr().out.count("statistics are over samples") == warnings
