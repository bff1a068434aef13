"""A run on latents from its images to a grid of samples."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

import evaluate
import sample
from {{cookiecutter.package_name}} import train as fit
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.tools.prepare.latents import OPTIONS, prepare_latents

from ..models.dit.tiny import TINY, write_images
from ..runs import rows
from .latents_files import save_vae

SIDE = 8  # pixels, which make 4 latents
Out = pytest.CaptureFixture[str]


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    """Overrides for the smallest run on latents of images in two classes, dark and light."""
    write_images(tmp_path / "images", {"train": 16, "val": 8}, SIDE)
    save_vae(tmp_path / "vae")
    options = {"images": str(tmp_path / "images"), "out": str(tmp_path / "latents"), "vae": str(tmp_path / "vae")}
    small = {"img_size": SIDE, "workers": 1, "device": "cpu"}
    prepare_latents(**{key: default for key, (default, _) in OPTIONS.items()} | options | small)
    sizes = [one for one in TINY.argv if not one.startswith(("data.", "task.", "trainer.max_epochs"))]
    quality = ["task.quality.n=8", "task.quality.features=pixels", "task.quality.steps=2", "task.samples.steps=2"]
    data = ["data=latents", f"data.root={tmp_path / 'latents'}", "data.workers=0", "data.total_batch_size=4"]
    return [*sizes, *quality, *data, "trainer=cpu", "trainer.max_epochs=1", f"runs={tmp_path / 'runs'}"]


def test_training_evaluation_and_samples(argv: list[str], tmp_path: Path, capsys: Out) -> None:
    run, summary = fit.train(compose(argv))
    assert {tag for _, tag, _ in rows(run)} >= {"train/loss", "val/loss", "val/fd_8"}
    for name in ("samples.png", "trajectory.png"):
        with Image.open(run / name) as picture:
            assert picture.mode == "RGB"
    evaluated = evaluate.main([f"checkpoint={run}", "trainer=cpu"])
    assert evaluated == pytest.approx({tag: summary[tag] for tag in ("test/loss", "test/fd_8")}, rel=1e-6)

    drawn = [f"checkpoint={run}", "n=4", "steps=2", "device=cpu"]
    sample.main(drawn)
    with Image.open(run / "samples-1.png") as picture:
        decoded = picture.convert("RGB").tobytes()
    shutil.move(tmp_path / "vae", tmp_path / "moved")
    capsys.readouterr()
    sample.main([*drawn, f"vae={tmp_path / 'moved'}"])
    sample.main([*drawn, "vae=none"])
    for number, same in ((2, True), (3, False)):
        with Image.open(run / f"samples-{number}.png") as picture:
            assert (picture.convert("RGB").tobytes() == decoded) == same

    measured = [f"checkpoint={run}", "trainer=cpu"]
    for script, arguments in ((evaluate, measured), (sample, drawn)):
        with pytest.raises(UsageError, match=r"vae=FOLDER.*vae=none") as refusal:
            script.main(arguments)
        assert "\n" not in str(refusal.value)
    assert not (run / "samples-4.png").exists()
    with pytest.raises(UsageError, match="vae=none"):
        fit.train(compose([*argv, f"runs={tmp_path / 'none'}"]))
    assert not (tmp_path / "none").exists()
    moved = evaluate.main([*measured, f"data.vae={tmp_path / 'moved'}"])
    assert moved == pytest.approx(evaluated, rel=1e-6)


def test_training_without_an_autoencoder(argv: list[str], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "vae")
    run, summary = fit.train(compose([*argv, "data.vae=none", "task.quality.n=0"]))
    assert summary["steps"] == 4
    assert (run / "samples.png").exists()
