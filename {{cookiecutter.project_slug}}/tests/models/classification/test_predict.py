"""`python predict.py` with a classifier."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.data.image_sources import MODES
from {{cookiecutter.package_name}}.models.classification.module import Classifier
from {{cookiecutter.package_name}}.train import build_module

from .tiny import TINY

Out = pytest.CaptureFixture[str]
NAMES = [f"class {number}" for number in range(10)]
COLOUR = ["data.in_chans=3", "data.mean=[0.5,0.4,0.3]", "data.std=[0.2,0.3,0.4]"]


def save(run: Path, *argv: str, **state: object) -> tuple[Path, Classifier]:
    """A run as far as predict.py looks at it, whose weights and average differ."""
    cfg = compose([*TINY.argv, *argv])
    module = build_module(cfg)
    assert isinstance(module, Classifier)
    module.eval()
    for net in (module.model, module.eval_model):
        torch.nn.init.normal_(net.get_classifier().weight)
    (run / "checkpoints").mkdir(parents=True)
    saved = {"config": plain(cfg), "global_step": 0, "state_dict": module.state_dict(), **state}
    torch.save(saved, run / "checkpoints" / "last.ckpt")
    return run, module


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Classifier]:
    return save(tmp_path / "run", Images={"class_names": NAMES, "sizes": {}})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Ten images of the model's size in two folders, a broken one, a hidden one, and a text."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    for number, one in enumerate(pixels):
        name = folder / "more" / f"{number}.png" if number > 7 else folder / f"{number + 4}.png"
        Image.fromarray(one).save(name)
    Image.fromarray(pixels[0]).save(folder / ".hidden.png")
    (folder / "broken.jpg").write_bytes((folder / "4.png").read_bytes()[:100])
    (folder / "notes.txt").touch()
    return folder


def by_hand(module: Classifier, path: Path, mean: list[float], std: list[float]) -> np.ndarray:
    """Probabilities of an image that needs no resizing."""
    with Image.open(path) as image:
        pixels = np.atleast_3d(np.asarray(image.convert(MODES[len(mean)]))) / 255
    x = torch.tensor((pixels - mean) / std, dtype=torch.float32).movedim(-1, 0)[None]
    with torch.no_grad():
        logits = module.eval_model(x)[0].double().numpy()
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize("argv", [[], COLOUR, ["ema.decay=0"]], ids=["grey", "colour", "no average"])
def test_probabilities_are_the_softmax_of_the_model(tmp_path: Path, images: Path, argv: list[str], capsys: Out) -> None:
    run, module = save(tmp_path / "run", *argv, Images={"class_names": NAMES})
    data = compose([*TINY.argv, *argv]).data
    predict.main([f"checkpoint={run}", f"images={images}", "top=3", "batch_size=4"])
    shown = capsys.readouterr()
    rows = list(csv.DictReader(shown.out.splitlines()))
    names = [*(f"{number}.png" for number in range(4, 12)), "more/8.png", "more/9.png"]
    assert [row["path"] for row in rows] == [str(images / name) for name in names], "4 before 10"
    for row in rows:
        expected = by_hand(module, Path(row["path"]), list(data.mean), list(data.std))
        best = np.argsort(-expected)[:3]
        assert [row[f"class_{rank}"] for rank in (1, 2, 3)] == [NAMES[number] for number in best]
        found = [float(row[f"probability_{rank}"]) for rank in (1, 2, 3)]
        assert found == pytest.approx(expected[best], abs=2e-6)
    assert shown.err.count("broken.jpg: ") == 1
    assert "10 of 11 image(s) predicted, 1 skipped" in shown.err


def test_json_lines_in_a_file(run: tuple[Path, Classifier], images: Path, tmp_path: Path, capsys: Out) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    predict.main([f"checkpoint={run[0]}", f"images={images}", f"out={out}", "top=99"])
    assert capsys.readouterr().out == ""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 10
    for line in lines:
        assert line.keys() == {"path", "classes", "probabilities"}
        assert sorted(line["classes"]) == NAMES
        assert line["probabilities"] == sorted(line["probabilities"], reverse=True)
        assert sum(line["probabilities"]) == pytest.approx(1, abs=1e-5)


def test_no_names_in_the_checkpoint(tmp_path: Path, images: Path, capsys: Out) -> None:
    run, _ = save(tmp_path / "run")
    predict.main([f"checkpoint={run}", f"images={images / '4.png'}", "format=jsonl", "top=10"])
    (line,) = capsys.readouterr().out.splitlines()
    assert sorted(json.loads(line)["classes"]) == list("0123456789")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_the_precision_of_the_run(tmp_path: Path, images: Path, precision: str, capsys: Out) -> None:
    argv = [f"images={images}", "format=jsonl", "top=10"]
    found = []
    for name, overrides in (("full", []), ("other", [f"trainer.precision={precision}"])):
        run, _ = save(tmp_path / name, "ema.decay=0", *overrides)
        predict.main([f"checkpoint={run}", *argv])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        found.append([dict(zip(line["classes"], line["probabilities"], strict=True)) for line in lines])
    assert found[0] != found[1] or precision == "64-true"
    for full, other in zip(*found, strict=True):
        assert other == pytest.approx(full, abs=1e-5 if precision == "64-true" else 0.1)


@pytest.mark.parametrize(
    "option",
    [
        *("images=", "images=nowhere", "images=empty", "images=broken.csv out=new.csv"),
        *("out=out.txt", "out=nowhere/out.csv", "out=empty.csv", "format=xml", "format=jsonl out=out.csv"),
        *("top=0", "batch_size=0", "device=abacus"),
    ],
)
def test_refusals(
    run: tuple[Path, Classifier], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    folder = tmp_path / "here"
    for name in ("empty", "empty.csv"):
        (folder / name).mkdir(parents=True)
    (folder / "broken.csv").touch()
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=option.partition("=")[0]) as caught:
        predict.main([f"checkpoint={run[0]}", f"images={images}", *option.split()])
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in folder.iterdir()) == ["broken.csv", "empty", "empty.csv"]


def test_worker_processes_load(tmp_path: Path, images: Path, capsys: Out) -> None:
    run, _ = save(tmp_path / "run", "data.workers=1")
    argv = [f"checkpoint={run}", f"images={images}"]
    predict.main([*argv, "batch_size=4"])
    shown = capsys.readouterr()
    predict.main(argv)
    again = capsys.readouterr()
    paths, same = ([row[0] for row in csv.reader(text.splitlines())] for text in (shown.out, again.out))
    assert paths == same
    assert len(paths) == 11
    assert "1 skipped" in shown.err
