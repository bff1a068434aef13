"""From the command line to what is printed and written."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import benchmark
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.norms import names
from {{cookiecutter.package_name}}.tools.benchmark import norms, timing
from {{cookiecutter.package_name}}.tools.benchmark.main import read
from {{cookiecutter.package_name}}.tools.benchmark.timing import Case

QUICK = ["shapes=4x8,2x16", "seconds=0.001", "device=cpu"]
ONE = ["norm=dyt", "pass=forward", "rivals=none"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds of two calls on two buffers, and a compiler that changes nothing."""
    for name in "FEWEST", "MOST":
        monkeypatch.setattr(timing, name, 2)
    for name in "MOST_BUFFERS", "MOST_CALLS":
        monkeypatch.setattr(norms, name, 2)
    monkeypatch.setattr(torch, "compile", lambda call, **_: call)


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def broken(*_: Any, **__: Any) -> Callable[[Tensor], Tensor]:
    raise RuntimeError("no compiler here\nand much more")


def test_every_norm_in_every_way_and_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main([*QUICK, f"out={tmp_path}", "rivals=torch"])
    results = results_of(tmp_path / "norms-1")
    here = [norm for norm in norms.FORMULAS if norm in names()]
    ways = {(norm, how) for norm in here for how in ("formula", "compiled", "ours", "ours compiled")}
    ways |= {("ln", "torch"), ("rmsnorm", "torch"), ("", "copy")}
    passes = ("forward", "backward", "both")
    wanted = {(*shape, step, *way) for shape in ((4, 8), (2, 16)) for step in passes for way in ways}
    rows = results["rows"]
    assert len(rows) == len(wanted)
    assert {tuple(row[key] for key in ("tokens", "width", "step", "norm", "how")) for row in rows} == wanted
    assert all(row["seconds"] > 0 and row["rounds"] == 2 for row in rows)
    assert results["finished"]
    assert list(results["skipped"]) == ["none"]
    assert {"device", "threads", "load", "versions", "git", "settings"} <= results.keys()
    assert (tmp_path / "norms-1" / "plot.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    table = (tmp_path / "norms-1" / "table.txt").read_text(encoding="utf-8")
    for text in shown, table:
        assert "4x8 fp32" in text
        assert "skipped: none" in text
        assert len(re.findall(r"(?m)^dyt +(formula|compiled|ours|ours compiled)  ", text)) == 8
    benchmark.main([*QUICK, f"out={tmp_path}", *ONE, "compile=false", "dtype=bf16"])
    results = results_of(tmp_path / "norms-2")
    assert [row["how"] for row in results["rows"]] == ["copy", "formula", "ours"] * 2
    assert {row["step"] for row in results["rows"]} == {"forward"}


def test_a_shape_too_large_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Few(norms.Buffers):
        def __init__(self, shape: tuple[int, int], *rest: Any) -> None:
            if shape == (4, 8):
                raise torch.OutOfMemoryError("out of memory\nby far")
            super().__init__(shape, *rest)

    monkeypatch.setattr(norms, "Buffers", Few)
    benchmark.main([*QUICK, f"out={tmp_path}", *ONE])
    results = results_of(tmp_path / "norms-1")
    assert results["skipped"] == {"the rest of 4x8": "out of memory"}
    assert {row["tokens"] for row in results["rows"]} == {2}
    with pytest.raises(UsageError, match="out of memory"):
        benchmark.main(["shapes=4x8", *QUICK[1:], f"out={tmp_path}", *ONE])
    assert [folder.name for folder in tmp_path.iterdir()] == ["norms-1"]


@pytest.mark.parametrize(("turns", "rounds"), [(10, [1, 1, 2]), (3, None)])  # of three cases: six to warm up
def test_ctrl_c_prints_and_writes_what_there_is(
    turns: int,
    rounds: list[int] | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = iter(range(turns))

    def clock(case: Case) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        timing.wall_clock(case)

    monkeypatch.setattr(norms, "wall_clock", clock)
    with pytest.raises(KeyboardInterrupt):
        benchmark.main([*QUICK, f"out={tmp_path}", *ONE, "compile=false"])
    shown = capsys.readouterr().out
    if rounds is None:
        assert not [*tmp_path.iterdir()], "nothing was measured"
    else:
        results = results_of(tmp_path / "norms-1")
        assert not results["finished"]
        assert sorted(row["rounds"] for row in results["rows"]) == rounds
        assert re.search(r"(?m)^dyt +ours", shown)


def test_a_broken_compiler_is_skipped_a_broken_norm_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", broken)
    argv = [*QUICK[1:], "shapes=4x8", f"out={tmp_path}", *ONE]
    benchmark.main(argv)
    results = results_of(tmp_path / "norms-1")
    assert results["skipped"] == dict.fromkeys(("dyt compiled at 4x8", "dyt ours compiled at 4x8"), "no compiler here")
    assert [row["how"] for row in results["rows"]] == ["copy", "formula", "ours"]
    make_norm = norms.make_norm
    monkeypatch.setattr(norms, "make_norm", lambda *args, **kw: broken() if "device" in kw else make_norm(*args, **kw))
    with pytest.raises(RuntimeError):
        benchmark.main(argv)


@pytest.mark.parametrize(
    "argument",
    [
        *("shapes=12", "shapes=0x8", "shapes=4x8,", "dtype=fp8", "pass=sideways", "norm=dty", "norm=none"),
        *("rivals=tiger", "device=abacus", "seconds=0", "threads=-1", "shape=4x8", "model.depht=3", "model=nothing"),
    ],
)
def test_refusals_leave_nothing(argument: str, tmp_path: Path) -> None:
    key = argument.partition("=")[0]
    with pytest.raises(UsageError, match=re.escape(key)):
        benchmark.main([argument, f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="out="):
        benchmark.main([*QUICK, f"out={tmp_path / 'file'}"])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(["--help"])
    assert "  shapes=  " in capsys.readouterr().out


def test_norms_and_models_are_told_apart() -> None:
    assert read(["norm=dyt", "seconds=1", "shapes=8x4,2x6"])[0]["shapes"] == [(8, 4), (2, 6)]
    assert read(["norm=dyt"])[1] == []
    options, config = read(["norm=dyt", "model.depth=2", "compile=false"])
    assert (config, options["compile"]) == (["model.depth=2"], False)
