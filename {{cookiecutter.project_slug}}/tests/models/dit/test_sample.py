"""`python sample.py` with a DiT."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sample
from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.models.dit.module import DiTModule
from {{cookiecutter.package_name}}.train import build_module
from {{cookiecutter.package_name}}.utils import mix

from .tiny import TINY

Out = pytest.CaptureFixture[str]
TILE = 64 + 4  # an image of 8 x 8, and the gap


def save(folder: Path, *argv: str) -> tuple[Path, DiTModule]:
    """A run as far as sample.py looks at it, whose weights and average differ."""
    cfg = compose([*TINY.argv, "ema.decay=0.9", *argv])
    module = build_module(cfg)
    assert isinstance(module, DiTModule)
    torch.nn.init.zeros_(module.model.get_parameter("final_layer.linear.weight"))
    (folder / "checkpoints").mkdir(parents=True)
    saved = {"config": plain(cfg), "global_step": 0, "state_dict": module.state_dict()}
    torch.save(saved, folder / "checkpoints" / "last.ckpt")
    return folder, module


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, DiTModule]:
    return save(tmp_path / "run")


def draw(run: Path, *argv: str) -> np.ndarray:
    """The grid that is written, which goes again."""
    out = run / "out.png"
    sample.main([f"checkpoint={run}", f"out={out}", "n=7", "steps=4", *argv])
    with Image.open(out) as picture:
        grid = np.asarray(picture)[..., 0]
    out.unlink()
    return grid


def image(grid: np.ndarray, row: int, column: int) -> np.ndarray:
    """(8, 8), checking that it was enlarged."""
    gap = 4 if max(grid.shape) > 64 else 0
    tile = grid[gap + row * TILE :, gap + column * TILE :][:64, :64]
    assert (tile == tile[::8, ::8].repeat(8, 0).repeat(8, 1)).all()
    return tile[::8, ::8]


def by_hand(
    module: DiTModule, number: int, label: int, guidance: float = 1, low: float = 0, high: float = 1, heun: bool = False
) -> np.ndarray:
    """Sample `number` in four steps of the flow, alone."""

    def slope(x: torch.Tensor, t: float) -> torch.Tensor:
        model, times = module.eval_model.eval(), torch.tensor([t])
        v = model(x, times, torch.tensor([label]))
        if low <= t < high or t == high == 1:
            free = model(x, times, torch.tensor([10]))
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
    folder, module = run
    grid = draw(folder, "classes=2,5", *argv)
    for number in range(7):
        row, column = divmod(number, 4)
        expected = by_hand(module, number, (2, 5)[number % 2], **how)
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


def test_classes_may_be_named(run: tuple[Path, DiTModule], tmp_path: Path, capsys: Out) -> None:
    """A name counts before a number, as in folders 1, 2 and 10."""
    folder = Path(shutil.copytree(run[0], tmp_path / "named"))
    file = folder / "checkpoints" / "last.ckpt"
    names = ["ant", "bee", "1", *"defghij"]
    torch.save(torch.load(file, weights_only=True) | {"Images": {"class_names": names}}, file)
    for typed, number in (("bee", 1), ("1", 2), ("3", 3)):
        sample.main([f"checkpoint={folder}", f"classes={typed}", "n=2", "steps=1", f"out={tmp_path / typed}.png"])
        assert f"of classes {names[number]}\n" in capsys.readouterr().out
        sample.main([f"checkpoint={run[0]}", f"classes={number}", "n=2", "steps=1", f"out={tmp_path / typed}-.png"])
        assert (tmp_path / f"{typed}.png").read_bytes() == (tmp_path / f"{typed}-.png").read_bytes()
        capsys.readouterr()


def test_files_beside_the_grid(run: tuple[Path, DiTModule], capsys: Out) -> None:
    folder, _ = run
    sample.main([f"checkpoint={folder}", "classes=7,0,3", "n=11", "steps=1", "files=true"])
    shown = capsys.readouterr().out
    assert f"{folder / 'samples-1.png'}: 11 images, in columns of classes 7, 0, 3\n" in shown
    assert re.search(r"^11 images in \d+\.\d s$", shown, re.MULTILINE)
    names = sorted(path.name for path in (folder / "samples-1").iterdir())
    assert names == [f"{number:02}_{(7, 0, 3)[number % 3]}.png" for number in range(11)]
    with Image.open(folder / "samples-1.png") as picture:
        grid = np.asarray(picture)[..., 0]
        assert (picture.mode, picture.size) == ("RGB", (6 * TILE + 4, 2 * TILE + 4))
    for number, name in enumerate(names):
        with Image.open(folder / "samples-1" / name) as single:
            assert (np.asarray(single) == image(grid, *divmod(number, 6))).all()
    assert (grid[TILE + 4 :, 5 * TILE :] == 190).all(), "an empty place"


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_the_run_s_precision(tmp_path: Path, precision: str) -> None:
    folder, module = save(tmp_path / "run", f"trainer.precision={precision}", "ema.decay=0")
    torch.nn.init.normal_(module.model.get_parameter("final_layer.linear.weight"), std=0.1)
    file = folder / "checkpoints" / "last.ckpt"
    torch.save({**torch.load(file, weights_only=True), "state_dict": module.state_dict()}, file)
    close, exact = np.abs(image(draw(folder, "n=1"), 0, 0) - by_hand(module, 0, 0, heun=True)), 0.6
    assert close.max() < 20
    assert (close.max() < exact) == (precision == "64-true")


def test_nothing_is_overwritten(run: tuple[Path, DiTModule]) -> None:
    folder, _ = run
    (folder / "samples-1.png").write_text("somebody's")
    (folder / "samples-2").mkdir()
    sample.main([f"checkpoint={folder / 'checkpoints' / 'last.ckpt'}", "n=1", "steps=1"])
    assert (folder / "samples-3.png").stat().st_size > 50
    for out, files in (("samples-1.png", "false"), ("samples-2.png", "true")):
        with pytest.raises(UsageError, match="new"):
            sample.main([f"checkpoint={folder}", "n=1", "steps=1", f"out={folder / out}", f"files={files}"])
    assert (folder / "samples-1.png").read_text() == "somebody's"


@pytest.mark.parametrize(
    "option",
    [
        *("classes=0,11", "classes=-1", "classes=cat", "n=0", "steps=0", "batch_size=0", "guidance=-1"),
        *("guidance=inf", "interval=0.5", "interval=0.8,0.2", "interval=0,nan", "interval=0,2", "sampler=rk4"),
        *("out=grid.jpg", "out=/dev/null/grid.png", "device=abacus", "vae=none", "prompt=a"),
    ],
)
def test_refusals(run: tuple[Path, DiTModule], option: str) -> None:
    folder, _ = run
    with pytest.raises(UsageError, match=option.partition("=")[0]) as caught:
        sample.main([f"checkpoint={folder}", option])
    assert "\n" not in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["checkpoints"]


def test_a_model_that_knows_no_missing_class_is_not_guided(tmp_path: Path) -> None:
    folder, _ = save(tmp_path / "run", "task.label_dropout=0")
    with pytest.raises(UsageError, match="guidance"):
        sample.main([f"checkpoint={folder}", "guidance=2"])
    assert draw(folder).any()
