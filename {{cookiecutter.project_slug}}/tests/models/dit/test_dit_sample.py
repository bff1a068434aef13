"""`python sample.py` with a DiT."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sample
from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.models.dit import sample as dit_sample
from {{cookiecutter.package_name}}.models.dit.module import DiTModule
from {{cookiecutter.package_name}}.train import build_module
from {{cookiecutter.package_name}}.utils import columns, mix, tiled

from .tiny import TINY

Out = pytest.CaptureFixture[str]
TILE = 64 + 4  # an image of 8 x 8, and the gap


def save(folder: Path, *argv: str) -> tuple[Path, DiTModule]:
    """A run as far as sample.py looks at it, whose weights and average differ."""
    cfg = compose([*TINY.argv, "ema.decay=0.9", *argv])
    task = build_module(cfg)
    assert isinstance(task, DiTModule)
    torch.nn.init.zeros_(task.model.get_parameter("final_layer.linear.weight"))
    (folder / "checkpoints").mkdir(parents=True)
    saved = {"config": plain(cfg), "global_step": 0, "state_dict": task.state_dict()}
    torch.save(saved, folder / "checkpoints" / "last.ckpt")
    return folder, task


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, DiTModule]:
    return save(tmp_path / "run")


def draw(run: Path, *argv: str) -> np.ndarray:
    """The grid that is written, which goes again."""
    out = run / "out.png"
    sample.main([f"checkpoint={run}", f"out={out}", "n=7", "steps=4", *argv])
    with Image.open(out) as picture:
        grid = np.asarray(picture)
    out.unlink()
    return grid


def image(grid: np.ndarray, row: int, column: int) -> np.ndarray:
    """(8, 8), checking that it was enlarged."""
    tile = grid[row * TILE :, column * TILE :][:64, :64]
    assert (tile == tile[::8, ::8].repeat(8, 0).repeat(8, 1)).all()
    return tile[::8, ::8]


def by_hand(
    task: DiTModule, number: int, label: int, guidance: float = 1, low: float = 0, high: float = 1, heun: bool = False
) -> np.ndarray:
    """Sample `number` in four steps of the flow, alone."""

    def slope(x: torch.Tensor, t: float) -> torch.Tensor:
        net, times = task.eval_model.eval(), torch.tensor([t])
        v = net(x, times, torch.tensor([label]))
        if low <= t < high or t == high == 1:
            free = net(x, times, torch.tensor([10]))
            v = free + guidance * (v - free)
        return v

    with torch.no_grad():
        x = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(mix(0, number)))[None]
        for step in range(4):
            first = slope(x, step / 4)
            second = slope(x + first / 4, (step + 1) / 4) if heun and step < 3 else first
            x = x + (first + second) / 8
    return (127.5 * (x[0, 0].clamp(-1, 1) + 1)).numpy()


@pytest.mark.parametrize(
    ("argv", "how"),
    [
        ([], {"heun": True}),
        (["guidance=3"], {"guidance": 3, "heun": True}),
        (["guidance=0"], {"guidance": 0, "heun": True}),
        (["guidance=3", "interval=0.5,0.75"], {"guidance": 3, "low": 0.5, "high": 0.75, "heun": True}),
        (["guidance=2", "sampler=euler"], {"guidance": 2}),
    ],
    ids=str,
)
def test_images_are_those_of_the_equations(run: tuple[Path, DiTModule], argv: list[str], how: dict) -> None:
    """And of the average."""
    folder, task = run
    grid = draw(folder, "classes=2,5", *argv)
    for number in range(7):
        row, column = divmod(number, 4)
        expected = by_hand(task, number, (2, 5)[number % 2], **how)
        assert np.abs(image(grid, row, column) - expected).max() < 0.6, "but for rounding to whole levels"


@pytest.mark.parametrize("objective", ["flow", "ddpm"])
def test_the_same_on_any_batch_size(tmp_path: Path, objective: str) -> None:
    if objective == "ddpm":
        pytest.importorskip("diffusers")
    folder, _ = save(tmp_path / "run", f"objective={objective}")
    grids = [draw(folder, f"batch_size={size}", "guidance=2").astype(int) for size in (1, 3, 64)]
    assert max(np.abs(grid - grids[0]).max() for grid in grids) <= 1
    assert np.abs(draw(folder, "guidance=2", "seed=1").astype(int) - grids[0]).max() > 9
    assert (draw(folder, "guidance=2") == grids[2]).all()


def test_files_beside_the_grid(run: tuple[Path, DiTModule], capsys: Out) -> None:
    folder, _ = run
    sample.main([f"checkpoint={folder}", "classes=7,0,3", "n=11", "steps=1", "files=true"])
    shown = capsys.readouterr().out
    assert f"{folder / 'samples-1.png'}: 11 images, in columns of classes 7, 0, 3\n" in shown
    assert re.search(r"^11 images in \d+\.\d s$", shown, re.MULTILINE)
    names = sorted(path.name for path in (folder / "samples-1").iterdir())
    assert names == [f"{number:02}_{(7, 0, 3)[number % 3]}.png" for number in range(11)]
    with Image.open(folder / "samples-1.png") as picture:
        grid = np.asarray(picture)
        assert (picture.mode, picture.size) == ("L", (6 * TILE - 4, 2 * TILE - 4))
    for number, name in enumerate(names):
        with Image.open(folder / "samples-1" / name) as single:
            assert (np.asarray(single) == image(grid, *divmod(number, 6))).all()
    assert (grid[TILE:, 5 * TILE :] == 190).all(), "an empty place"


def test_more_than_a_grid_shows(run: tuple[Path, DiTModule], monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    folder, _ = run
    monkeypatch.setattr(dit_sample, "MAX_SHOWN", 4)
    with pytest.raises(UsageError, match="n=6: a grid shows 4; files=true writes more"):
        sample.main([f"checkpoint={folder}", "n=6", "steps=1"])
    sample.main([f"checkpoint={folder}", "n=6", "steps=1", "files=true", "batch_size=3"])
    assert f"{folder / 'samples-1.png'}: 4 images" in capsys.readouterr().out
    assert len(list((folder / "samples-1").iterdir())) == 6


def test_nothing_is_overwritten(run: tuple[Path, DiTModule]) -> None:
    folder, _ = run
    (folder / "samples.png").write_text("the run's")
    (folder / "samples-1.png").write_text("somebody's")
    (folder / "samples-2").mkdir()
    sample.main([f"checkpoint={folder / 'checkpoints' / 'last.ckpt'}", "n=1", "steps=1"])
    assert (folder / "samples-3.png").stat().st_size > 50
    for out, files in (("samples-1.png", "false"), ("samples-2.png", "true")):
        with pytest.raises(UsageError, match="is there already; choose another name"):
            sample.main([f"checkpoint={folder}", "n=1", "steps=1", f"out={folder / out}", f"files={files}"])
    assert (folder / "samples-1.png").read_text() == "somebody's"
    assert (folder / "samples.png").read_text() == "the run's"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_nothing_is_left_behind(
    run: tuple[Path, DiTModule], monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error

    folder, _ = run
    monkeypatch.setattr(dit_sample, "write_png", fail)
    with pytest.raises(error):
        sample.main([f"checkpoint={folder}", "n=2", "steps=1", "files=true"])
    assert [path.name for path in folder.iterdir()] == ["checkpoints"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("classes=0,11", "classes=0,11: the model knows 0 to 9"),
        ("classes=-1", "classes=-1: the model knows 0 to 9"),
        ("classes=cat", "classes=cat: expected numbers with commas between, as in classes=0,1"),
        ("classes=1,", "classes=1,: expected numbers with commas between"),
        ("n=0", "n=0: expected at least 1"),
        ("steps=0", "steps=0: expected at least 1"),
        ("steps=two", "steps=two: expected a whole number"),
        ("batch_size=0", "batch_size=0: expected at least 1"),
        ("guidance=inf", "guidance=inf: expected a number"),
        ("guidance=-1", "guidance=-1.0: expected 0 or more"),
        ("interval=0.5", "interval=0.5: expected two rising numbers"),
        ("interval=0.8,0.2", "interval=0.8,0.2: expected two rising numbers"),
        ("interval=0,nan", "interval=0,nan: expected two rising numbers"),
        ("interval=0,2", "interval=0,2: expected two rising numbers"),
        ("interval=0,a", "interval=0,a: expected two rising numbers"),
        ("sampler=rk4", "sampler=rk4: choose heun or euler"),
        ("files=yes", "files=yes: expected true or false"),
        ("out=grid.jpg", "out=grid.jpg: expected a name that ends in .png"),
        ("out=no/such/folder/grid.png", "grid.png: it cannot be written (No such file or directory)"),
        ("device=abacus", "device=abacus: PyTorch finds no such device here"),
        ("vae=none", "vae=none: this model was trained on images"),
        ("prompt=a", "prompt: there is no such key"),
    ],
)
def test_refusals(run: tuple[Path, DiTModule], capsys: Out, option: str, words: str) -> None:
    folder, _ = run
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        sample.main([f"checkpoint={folder}", option])
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    assert [path.name for path in folder.iterdir()] == ["checkpoints"]


def test_guidance_wants_a_net_that_knows_no_class(tmp_path: Path) -> None:
    folder, _ = save(tmp_path / "run", "task.label_dropout=0")
    with pytest.raises(UsageError, match="guidance=2"):
        sample.main([f"checkpoint={folder}", "guidance=2"])
    assert draw(folder).any()


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_the_run_s_precision(tmp_path: Path, precision: str) -> None:
    folder, task = save(tmp_path / "run", f"trainer.precision={precision}", "ema.decay=0")
    torch.nn.init.normal_(task.model.get_parameter("final_layer.linear.weight"), std=0.1)
    file = folder / "checkpoints" / "last.ckpt"
    torch.save({**torch.load(file, weights_only=True), "state_dict": task.state_dict()}, file)
    close, exact = np.abs(image(draw(folder, "n=1"), 0, 0) - by_hand(task, 0, 0, heun=True)), 0.6
    assert close.max() < 20
    assert (close.max() < exact) == (precision == "64-true")


@pytest.mark.parametrize(
    ("number", "classes", "width"),
    [(40, 10, 10), (64, 1, 8), (64, 10, 10), (40, 1, 8), (7, 2, 4), (64, 3, 9), (3, 10, 3), (1, 1, 1), (40, 1000, 8)],
)
def test_a_column_is_of_one_class(number: int, classes: int, width: int) -> None:
    assert columns(number, classes) == width


def test_pictures_in_colour_and_of_any_size() -> None:
    images = torch.arange(3 * 3 * 100 * 80).view(3, 3, 100, 80) % 251
    grid = tiled(images.byte(), 2)
    assert grid.shape == (3, 204, 164)
    assert torch.equal(grid[:, :100, 84:], images[1].byte())
    assert torch.equal(grid[:, 104:, :80], images[2].byte())
    assert set(grid[:, 100:104].flatten().tolist()) == {190}
