"""What benchmark.py measures, counts and writes; never how fast anything is."""

import json
import re
import weakref
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import benchmark
from {{cookiecutter.package_name}}.benchmarks import memory, norms, rivals, run, timing
from {{cookiecutter.package_name}}.benchmarks.choices import DTYPES, choose, read_shapes
from {{cookiecutter.package_name}}.benchmarks.norms import Place
from {{cookiecutter.package_name}}.benchmarks.tables import duration, norm_rows, norm_tables
from {{cookiecutter.package_name}}.benchmarks.timing import Case, Times, take_turns
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.norms import names

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
    ways = {(norm, how) for norm in norms.FORMULAS for how in ("formula", "compiled", "ours")}
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
    assert len(re.findall(r"(?m)^dyt +(formula|compiled|ours) ", table)) == 6
    few = ["norm=dyt", "pass=forward", "rivals=none", "compile=false", "dtype=bf16"]
    benchmark.main([*QUICK, f"out={tmp_path}", *few])
    results = results_of(tmp_path / "norms-2")
    assert [row["how"] for row in results["rows"]] == ["formula", "ours", "copy"] * 2
    assert {row["pass"] for row in results["rows"]} == {"forward"}


def fabricated() -> norms.Results:
    """A copy of 2 s; LayerNorm, 4 s forward and 10 s for both; ours, half of it. Two calls a repetition."""
    results = norms.Results()
    for step, seconds in {"forward": 4.0, "both": 10.0}.items():
        results.times[Place((3, 5), step, "ln", "ours")] = Times(2, [2 * seconds, 2 * seconds, 30 * seconds])
        results.times[Place((3, 5), step, "dyt", "ours")] = Times(2, [seconds])
        results.times[Place((3, 5), step, "", "copy")] = Times(2, [4.0, 4.0])
        results.times[Place((3, 5), step, "dyt", "liger")] = Times(2)  # which was stopped before
    results.saved[Place((3, 5), "both", "dyt", "ours")] = 60
    return results


def test_bytes_rates_and_ratios() -> None:
    rows = {(row["pass"], row["norm"], row["how"]): row for row in norm_rows(fabricated(), itemsize=4)}
    assert len(rows) == 6
    size = 3 * 5 * 4
    assert rows["forward", "ln", "ours"]["seconds"] == 4.0
    assert rows["forward", "ln", "ours"]["bytes"] == 2 * size
    assert rows["both", "ln", "ours"]["bytes"] == 5 * size
    assert rows["forward", "", "copy"]["bytes_per_second"] == 2 * size / 2.0
    assert rows["forward", "ln", "ours"]["percent_of_copy"] == pytest.approx(50)
    assert rows["both", "ln", "ours"]["percent_of_copy"] == pytest.approx(100 * 5 * size / 10 / (2 * size / 2))
    assert rows["both", "dyt", "ours"]["ratio"] == 0.5
    assert rows["both", "dyt", "ours"]["ratio_to"] == "ln"
    assert rows["both", "", "copy"]["ratio"] is None
    assert rows["forward", "dyt", "ours"]["saved_bytes"] == 60
    (table,) = norm_tables(list(rows.values()), "fp32", 4)
    assert table.title == "3x5 fp32: x is 60 B, copied at 0.0 GB/s"
    assert list(table.columns[-1].cells) == ["", "1.00 x"]


def test_without_layer_norm_the_first_is_compared_with() -> None:
    results = fabricated()
    results.times = {place: one for place, one in results.times.items() if place.norm != "ln"}
    assert {row["ratio_to"] for row in norm_rows(results, 4) if row["norm"]} == {"dyt"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2.5, "2.50 s"), (0.5, "500 ms"), (0.0123, "12.3 ms"), (4.56e-6, "4.56 us"), (8e-8, "0.08 us")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_median_and_quartiles() -> None:
    times = Times(2, [2.0, 4.0, 6.0, 8.0, 100.0])
    assert (times.median, times.iqr) == (3.0, 2.0)
    assert Times(1, [7.0]).iqr == 0.0


def test_turns_are_taken_and_budgets_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MOST", 100)
    order: list[str] = []

    def clock(case: Case, times: Times) -> None:
        order.append(str(case.call(["", ""])))
        times.seconds.append(0.5)

    times: dict[str, Times] = {}
    shares: list[float] = []
    cases = {name: Case(name.join, calls=3) for name in "abc"}
    take_turns(cases, clock, 4.0, times, shares.append)
    rounds = ["".join(order[n : n + 3]) for n in range(6, len(order), 3)]
    assert order[:6] == list("aabbcc"), "warm"
    assert ["".join(sorted(one)) for one in rounds] == ["abc"] * 8, "eight of half a second each"
    assert len(set(rounds)) > 1, "whom one comes after changes"
    assert [len(one.seconds) for one in times.values()] == [8, 8, 8]
    assert sum(shares) == pytest.approx(3)
    take_turns(cases, clock, 0.1, times, shares.append)
    assert len(times["a"].seconds) == 2, "FEWEST"


def test_a_clock_on_a_cpu_leaves_preparation_out() -> None:
    seen: list[Any] = []

    def prepare(number: int) -> int:
        seen.append("ready")
        return number

    times = Times(3)
    timing.wall_clock(Case(seen.append, prepare, 3), times)
    assert seen == ["ready"] * 3 + [0, 1, 2]
    assert len(times.seconds) == 1


def test_a_gpu_waits_no_longer_for_having_waited_and_its_writes_are_not_answered_by_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.alive = -1

        def record(self) -> None:
            self.alive = sum(output() is not None for output in outputs)

        def synchronize(self) -> None: ...

        def elapsed_time(self, end: "Event") -> float:
            return 7.0 + end.alive

    def call(number: int) -> Tensor:
        outputs.append(weakref.ref(y := torch.zeros(number)))
        return y

    outputs: list[weakref.ref[Tensor]] = []
    cycles: list[int] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "_sleep", cycles.append)
    monkeypatch.setattr(timing, "cache_bytes", lambda device: 8)
    times = Times(3, launching=[0.001, 9.0])
    timing.CudaClock(torch.device("cpu"))(Case(call, lambda number: number, 3), times)
    assert cycles == [3_000_000], "of the millisecond: a full queue of launches made the 9 s"
    assert times.seconds == [0.01], "all three outputs were there at the end"
    assert len(times.launching) == 3
    assert not any(output() is not None for output in outputs)


def test_inputs_rotate_from_one_repetition_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "MOST_BUFFERS", 3)
    buffers = norms.Buffers((4, 8), torch.float32, torch.device("cpu"))
    case = buffers.case(norms.entry("dyt", "ours", 8, torch.float32, torch.device("cpu")), "forward")
    assert case.calls == 2
    taken = [case.prepare(0), case.prepare(1), case.prepare(0), buffers.copy().prepare(0)]
    assert [next(n for n, x in enumerate(buffers.x) if x.data_ptr() == one.data_ptr()) for one in taken] == [0, 1, 2, 0]


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


def test_kernels_are_compared_with_the_plain_path_where_there_are_some() -> None:
    cpu, gpu = (norms.Plan([], [], [], torch.float32, torch.device(name)) for name in ("cpu", "cuda"))
    assert gpu.ways("dyt") == ["formula", "compiled", "ours", "plain"]
    assert gpu.ways("ln") == ["formula", "compiled", "ours"]
    assert cpu.ways("dyt") == ["formula", "compiled", "ours"]
    kernels = [norms.entry("derf", how, 8, torch.float32, cpu.device).call for how in ("ours", "plain")]
    assert [getattr(norm, "kernel", "") for norm in kernels] == ["auto", "plain"]


def test_backward_is_of_every_parameter() -> None:
    """Or it would be cheaper than in training: the gradients of "both" are those of x, weight and bias."""
    buffers = norms.Buffers((4, 8), torch.float32, torch.device("cpu"))
    one = norms.entry("dyt", "formula", 8, torch.float32, torch.device("cpu"))
    assert len(one.parameters) == 3
    for step in ("backward", "both"):
        case = buffers.case(one, step)
        gradients = case.call(case.prepare(0))
        assert isinstance(gradients, tuple)
        gradients = gradients[1] if step == "both" else gradients
        assert [gradient.shape for gradient in gradients] == [(4, 8), (1,), (8,), (8,)]


@pytest.mark.parametrize("norm", norms.FORMULAS)
def test_formulas_are_the_norms(norm: str) -> None:
    cpu = torch.device("cpu")
    formula, ours = (norms.entry(norm, how, 8, torch.float32, cpu) for how in ("formula", "ours"))
    x = 3 * torch.randn(32, 8) + 1
    torch.testing.assert_close(formula.call(x), ours.call(x))


def test_what_is_saved_for_backward() -> None:
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(8, requires_grad=True)
    size = 4 * 8 * 4
    assert memory.saved_bytes(lambda: torch.tanh(x), []) == size, "the output"
    assert memory.saved_bytes(lambda: weight * torch.tanh(x), [weight]) == size, "once, for both operations"
    assert memory.saved_bytes(lambda: torch.tanh(torch.tanh(x)), []) == 2 * size
    layer = nn.LayerNorm(8)
    assert memory.saved_bytes(lambda: layer(x), layer.parameters()) == size + 2 * 4 * 4, "x, means and deviations"
    assert memory.peak_bytes(lambda: None, torch.device("cpu")) is None


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


def test_rivals_that_cannot_take_part_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise PackageNotFoundError

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(rivals, "version", absent)
    assert rivals.RIVALS["liger"].missing(cpu) == "not installed (pip install liger-kernel)"
    monkeypatch.setattr(rivals, "version", lambda package: "1.0")
    assert rivals.RIVALS["torch"].missing(cpu) == ""
    assert rivals.RIVALS["quack"].missing(cpu) == "wants an NVIDIA GPU of capability 9.0 or more, and this is cpu"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert rivals.RIVALS["quack"].missing(gpu) == "wants an NVIDIA GPU of capability 9.0 or more, and this has 8.0"
    assert rivals.RIVALS["liger"].missing(gpu) == ""


def test_what_fails_is_skipped_but_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Callable[[Tensor], Tensor]:
        raise RuntimeError("no compiler here\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    benchmark.main([*QUICK[1:], "shapes=4x8", f"out={tmp_path}", "norm=dyt", "pass=forward", "rivals=none"])
    results = results_of(tmp_path / "norms-1")
    assert results["skipped"] == {"dyt compiled at 4x8": "no compiler here"}
    assert [row["how"] for row in results["rows"]] == ["formula", "ours", "copy"]
    monkeypatch.setattr(norms, "make_norm", broken)
    plan = norms.Plan(["dyt"], [(4, 8)], ["forward"], torch.float32, torch.device("cpu"))
    monkeypatch.setattr(plan.__class__, "ways", lambda plan, norm: ["ours"])
    with pytest.raises(RuntimeError, match="no compiler here"):
        norms.measure(plan, timing.wall_clock, norms.Results(), lambda share: None)


def test_shapes() -> None:
    assert read_shapes("8192x4096,2048x64") == [(8192, 4096), (2048, 64)]
    assert read_shapes("") == []


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("shapes=12", "shapes=12: expected ROWSxWIDTH, as in shapes=8192x4096"),
        ("shapes=0x8", "shapes=0x8: expected ROWSxWIDTH"),
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
    with pytest.raises(UsageError, match="expected a folder, this is a file"):
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
    assert set(names()) >= {"dyt", "ln"}
