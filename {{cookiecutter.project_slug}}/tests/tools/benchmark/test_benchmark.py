"""From what is typed after benchmark.py to what it prints and writes; never how fast anything is."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import benchmark
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.tools.benchmark import norms, run, timing
from {{cookiecutter.package_name}}.tools.benchmark.choices import DTYPES, choose, read_shapes
from {{cookiecutter.package_name}}.tools.benchmark.report import Results
from {{cookiecutter.package_name}}.tools.benchmark.timing import Case, Times

QUICK = ["shapes=4x8,2x16", "seconds=0.001", "device=cpu"]
PASSES = ["forward", "backward", "both"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two repetitions of two calls on two buffers, and a compiler that changes nothing."""
    monkeypatch.setattr(timing, "FEWEST", 2)
    monkeypatch.setattr(timing, "MOST", 2)
    monkeypatch.setattr(norms, "MOST_BUFFERS", 2)
    monkeypatch.setattr(norms, "MOST_CALLS", 2)
    monkeypatch.setattr(torch, "compile", lambda call, **_: call)


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def test_every_norm_as_every_way_and_every_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main([*QUICK, f"out={tmp_path}", "rivals=torch"])
    results = results_of(tmp_path / "norms-1")
    ways = {(norm, how) for norm in norms.FORMULAS for how in ("formula", "compiled", "ours", "ours compiled")}
    ways |= {("ln", "torch"), ("rmsnorm", "torch"), ("", "copy")}
    wanted = {(*shape, step, *way) for shape in ((4, 8), (2, 16)) for step in PASSES for way in ways}
    rows = results["rows"]
    assert len(rows) == len(wanted)
    assert {tuple(row[key] for key in ("tokens", "width", "pass", "norm", "how")) for row in rows} == wanted
    assert all(row["seconds"] > 0 and row["repetitions"] == 2 for row in rows)
    assert results["finished"]
    assert results["skipped"] == {"none": "it gives back its input"}
    assert {"machine", "versions", "git", "settings"} <= results.keys()
    assert (tmp_path / "norms-1" / "plot.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "4x8 fp32" in shown
    assert "skipped: none: it gives back its input" in shown
    table = (tmp_path / "norms-1" / "table.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"(?m)^dyt +(formula|compiled|ours|ours compiled)  ", table)) == 8
    few = ["norm=dyt", "pass=forward", "rivals=none", "compile=false", "dtype=bf16"]
    benchmark.main([*QUICK, f"out={tmp_path}", *few])
    results = results_of(tmp_path / "norms-2")
    assert [row["how"] for row in results["rows"]] == ["formula", "ours", "copy"] * 2
    assert {row["pass"] for row in results["rows"]} == {"forward"}


def test_a_shape_too_large_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffers = norms.Buffers

    def few(shape: tuple[int, int], *rest: Any) -> norms.Buffers:
        if shape == (4, 8):
            raise torch.OutOfMemoryError("out of memory\nby far")
        return buffers(shape, *rest)

    monkeypatch.setattr(norms, "Buffers", few)
    benchmark.main([*QUICK, f"out={tmp_path}", "norm=dyt", "pass=forward", "rivals=none", "compile=false"])
    results = results_of(tmp_path / "norms-1")
    assert results["skipped"] == {"the rest of 4x8": "out of memory"}
    assert {row["tokens"] for row in results["rows"]} == {2}
    with pytest.raises(UsageError, match="nothing could be measured: the rest of 4x8: out of memory"):
        benchmark.main(["shapes=4x8", *QUICK[1:], f"out={tmp_path}", "norm=dyt", "rivals=none"])
    assert [folder.name for folder in tmp_path.iterdir()] == ["norms-1"]


class Stop:
    """A clock that is stopped by Ctrl-C after so many turns."""

    def __init__(self, turns: int) -> None:
        self.turns = turns

    def __call__(self, case: Case, times: Times) -> None:
        if self.turns == 0:
            raise KeyboardInterrupt
        self.turns -= 1
        timing.wall_clock(case, times)


def test_ctrl_c_prints_and_writes_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "wall_clock", Stop(10))  # forward: three ways, warm twice; then one round and one turn
    argv = [*QUICK, f"out={tmp_path}", "norm=dyt", "compile=false", "rivals=none"]
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(argv)
    results = results_of(tmp_path / "norms-1")
    assert not results["finished"]
    assert [row["how"] for row in results["rows"]] == ["formula", "ours", "copy"]
    assert sorted(row["repetitions"] for row in results["rows"]) == [1, 1, 2]
    shown = capsys.readouterr().out
    assert "stopped on the way" in shown
    assert re.search(r"(?m)^dyt +ours", shown)
    monkeypatch.setattr(run, "wall_clock", Stop(3))
    with pytest.raises(KeyboardInterrupt):
        benchmark.main(argv)
    assert [folder.name for folder in tmp_path.iterdir()] == ["norms-1"], "nothing was measured"


def test_what_fails_is_skipped_but_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Callable[[Tensor], Tensor]:
        raise RuntimeError("no compiler here\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    benchmark.main([*QUICK[1:], "shapes=4x8", f"out={tmp_path}", "norm=dyt", "pass=forward", "rivals=none"])
    results = results_of(tmp_path / "norms-1")
    assert results["skipped"] == dict.fromkeys(("dyt compiled at 4x8", "dyt ours compiled at 4x8"), "no compiler here")
    assert [row["how"] for row in results["rows"]] == ["formula", "ours", "copy"]
    monkeypatch.setattr(norms, "make_norm", broken)
    plan = norms.Plan(["dyt"], [(4, 8)], ["forward"], torch.float32, torch.device("cpu"))
    monkeypatch.setattr(plan.__class__, "ways", lambda plan, norm: ["ours"])
    with pytest.raises(RuntimeError, match="no compiler here"):
        norms.measure(plan, timing.wall_clock, Results(), lambda share: None)


def test_shapes() -> None:
    assert read_shapes("8192x4096,2048x64") == [(8192, 4096), (2048, 64)]
    assert read_shapes("") == []


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("shapes=12", "shapes=12: expected ROWSxWIDTH, as in shapes=8192x4096"),
        ("shapes=0x8", "shapes=0x8: expected ROWSxWIDTH"),
        ("shapes=4x8,", "shapes=: expected ROWSxWIDTH"),
        ("dtype=fp8", f"dtype=fp8: choose from {', '.join(DTYPES)}"),
        ("pass=sideways", "pass=sideways: there is no such one; choose from all, forward, backward, both"),
        ("norm=dty", "norm=dty: there is no such one (did you mean dyt?)"),
        ("norm=none", "norm=none: it gives back its input"),
        ("rivals=tiger", "rivals=tiger: there is no such one (did you mean liger?)"),
        ("device=abacus", "device=abacus: PyTorch finds no such device here"),
        ("seconds=0", "seconds=0.0: expected more than 0"),
        ("threads=-1", "threads=-1: expected 1 or more"),
        ("shape=4x8", "shape: there is no such key (did you mean shapes?)"),
        ("model.depht=3", "model.depht: there is no such key (did you mean model.depth?)"),
        ("model=nothing", "model=nothing: there is no such model"),
    ],
)
def test_refusals_leave_nothing(argument: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        benchmark.main([argument, f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"no directory can be made there|expected a directory"):
        benchmark.main([*QUICK, f"out={tmp_path / 'file'}"])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python benchmark.py [norm=all]")
    assert "  shapes=  " in shown


def test_two_kinds_are_told_apart() -> None:
    assert choose(["norm=dyt", "seconds=1"]).config == []
    chosen = choose(["norm=dyt", "model.depth=2", "compile=false"])
    assert (chosen.config, chosen.options["compile"]) == (["model.depth=2"], False)
