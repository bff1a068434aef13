"""Norms by themselves: what is called, counted and put into tables."""

import dataclasses
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from torch import nn
from torch._dynamo import OptimizedModule

from {{cookiecutter.package_name}}.tools.benchmark import memory, norms, rivals
from {{cookiecutter.package_name}}.tools.benchmark.norms import Place
from {{cookiecutter.package_name}}.tools.benchmark.report import Results
from {{cookiecutter.package_name}}.tools.benchmark.tables import duration, norm_rows, norm_tables
from {{cookiecutter.package_name}}.tools.benchmark.timing import Times


def test_inputs_rotate_from_one_repetition_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "MOST_BUFFERS", 3)
    monkeypatch.setattr(norms, "MOST_CALLS", 2)
    buffers = norms.Buffers((4, 8), torch.float32, torch.device("cpu"))
    case = buffers.case(norms.entry("dyt", "ours", 8, torch.float32, torch.device("cpu")), "forward")
    assert case.calls == 2
    taken = [case.prepare(), case.prepare(), case.prepare(), buffers.copy().prepare()]
    assert [next(n for n, x in enumerate(buffers.x) if x.data_ptr() == one.data_ptr()) for one in taken] == [0, 1, 2, 0]


def test_backward_is_of_every_parameter() -> None:
    """Or it would be cheaper than in training: the gradients of "both" are those of x, weight and bias."""
    buffers = norms.Buffers((4, 8), torch.float32, torch.device("cpu"))
    one = norms.entry("dyt", "formula", 8, torch.float32, torch.device("cpu"))
    assert len(one.parameters) == 3
    for step in ("backward", "both"):
        case = buffers.case(one, step)
        gradients = case.call(case.prepare())
        assert isinstance(gradients, tuple)
        gradients = gradients[1] if step == "both" else gradients
        assert [gradient.shape for gradient in gradients] == [(4, 8), (1,), (8,), (8,)]


@pytest.mark.parametrize("norm", norms.FORMULAS)
def test_formulas_are_the_norms(norm: str) -> None:
    cpu = torch.device("cpu")
    formula, ours = (norms.entry(norm, how, 8, torch.float32, cpu) for how in ("formula", "ours"))
    x = 3 * torch.randn(32, 8) + 1
    torch.testing.assert_close(formula.call(x), ours.call(x))


def test_kernels_are_compared_with_the_plain_path_where_there_are_some() -> None:
    cpu, gpu = (norms.Plan([], [], [], torch.float32, torch.device(name)) for name in ("cpu", "cuda"))
    assert gpu.ways("dyt") == ["formula", "compiled", "ours", "ours compiled", "plain", "triton compiled"]
    assert gpu.ways("ln") == ["formula", "compiled", "ours", "ours compiled"]
    assert cpu.ways("dyt") == ["formula", "compiled", "ours", "ours compiled"]
    assert dataclasses.replace(gpu, compiles=False).ways("derf") == ["formula", "ours", "plain"]
    ways = ("ours", "ours compiled", "plain", "triton compiled")
    kernels = [norms.entry("derf", how, 8, torch.float32, cpu.device).call for how in ways]
    assert [getattr(norm, "kernel", "") for norm in kernels] == ["auto", "auto", "plain", "triton"]
    assert [isinstance(norm, OptimizedModule) for norm in kernels] == [False, True, False, True]


def test_what_is_saved_for_backward() -> None:
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(8, requires_grad=True)
    size = 4 * 8 * 4
    assert memory.saved_bytes(lambda: torch.tanh(x), []) == size, "the output"
    assert memory.saved_bytes(lambda: weight * torch.tanh(x), [weight]) == size, "once, for both operations"
    assert memory.saved_bytes(lambda: torch.tanh(torch.tanh(x)), []) == 2 * size
    layer = nn.LayerNorm(8)
    assert memory.saved_bytes(lambda: layer(x), layer.parameters()) == size + 2 * 4 * 4, "x, means and deviations"
    assert memory.peak_bytes(lambda: None, torch.device("cpu")) is None


def test_rivals_that_cannot_take_part_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise PackageNotFoundError

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(rivals, "version", absent)
    assert rivals.RIVALS["liger"].missing(cpu) == "not installed (pip install liger-kernel)"
    monkeypatch.setattr(rivals, "version", lambda package: "1.0")
    assert rivals.RIVALS["torch"].missing(cpu) == ""
    assert "this is cpu" in rivals.RIVALS["liger"].missing(cpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 0))
    assert "this has 6.0" in rivals.RIVALS["liger"].missing(gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert rivals.RIVALS["liger"].missing(gpu) == ""


def fabricated() -> Results[Place]:
    """A copy of 2 s; LayerNorm, 4 s forward and 10 s for both; ours, half of it. Two calls a repetition."""
    results = Results[Place]()
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
