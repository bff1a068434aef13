"""Norms by themselves: the calls, their inputs, and the numbers made of their times."""

from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo import OptimizedModule

from {{cookiecutter.package_name}}.norms import names
from {{cookiecutter.package_name}}.tools.benchmark import norms
from {{cookiecutter.package_name}}.tools.benchmark.main import read
from {{cookiecutter.package_name}}.tools.benchmark.norms import Buffers, NormBenchmark, build
from {{cookiecutter.package_name}}.tools.benchmark.report import tables
from {{cookiecutter.package_name}}.tools.benchmark.timing import Timing

CPU = torch.device("cpu")


def named(step: str, norm: str = "dyt", how: str = "ours", **values: Any) -> Timing:
    return Timing("3x5", step, norm, how, **values)


def ways(*argv: str, device: str = "cuda") -> dict[str, list[str]]:
    return NormBenchmark(read(["rivals=none", *argv])[0], torch.device(device)).ways


def test_inputs_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "MOST_BUFFERS", 3)
    monkeypatch.setattr(norms, "MOST_CALLS", 2)
    buffers = Buffers((4, 8), torch.float32, CPU)
    case = buffers.case(named("forward"), *build("dyt", "ours", 8, torch.float32, CPU))
    assert case.calls == 2
    taken = [case.prepare(), case.prepare(), case.prepare(), buffers.copy(named("forward", "", "copy")).prepare()]
    assert [next(n for n, x in enumerate(buffers.x) if x.data_ptr() == one.data_ptr()) for one in taken] == [0, 1, 2, 0]


@pytest.mark.parametrize("step", ["backward", "both"])
def test_backward_computes_every_gradient(step: str) -> None:
    buffers = Buffers((4, 8), torch.float32, CPU)
    result: Any = buffers.case(named(step), *build("dyt", "formula", 8, torch.float32, CPU)).once()
    gradients = result[1] if step == "both" else result
    assert [gradient.shape for gradient in gradients] == [(4, 8), (1,), (8,), (8,)]


@pytest.mark.parametrize("norm", [norm for norm in norms.FORMULAS if norm in names()])
def test_formulas_are_the_norms(norm: str) -> None:
    x = 3 * torch.randn(32, 128) + 1
    formula, ours = (build(norm, how, 128, torch.float64, CPU)[0] for how in ("formula", "ours"))
    torch.testing.assert_close(formula(x.double()), ours(x.double()), rtol=1e-5, atol=1e-6)


def test_kernels_are_compared_on_a_gpu() -> None:
    own = ["formula", "compiled", "ours", "ours compiled"]
    assert ways("norm=dyt,ln") == {"dyt": [*own, "plain"], "ln": own}
    assert ways("norm=dyt", device="cpu") == {"dyt": own}
    assert ways("norm=derf", "compile=false") == {"derf": ["formula", "ours", "plain"]}
    found: list[Any] = [build("derf", how, 8, torch.float32, CPU)[0] for how in (*own[2:], "plain")]
    assert [norm.kernel for norm in found] == ["auto", "auto", "plain"]
    assert [isinstance(norm, OptimizedModule) for norm in found] == [False, True, False]


def test_rivals_that_cannot_take_part_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    options, _ = read(["norm=ln", "compile=false"])
    monkeypatch.setattr(norms, "find_spec", lambda name: None)
    assert "liger-kernel" in NormBenchmark(options, CPU).skipped["liger"]
    monkeypatch.setattr(norms, "find_spec", lambda name: True)
    benchmark = NormBenchmark(options, CPU)
    assert "GPU" in benchmark.skipped["liger"]
    assert benchmark.ways == {"ln": ["formula", "ours", "torch"]}
    assert NormBenchmark(options, torch.device("cuda")).ways == {"ln": ["formula", "ours", "torch", "liger"]}
    assert isinstance(build("ln", "torch", 8, torch.float32, CPU)[0], nn.LayerNorm)


def fabricated(*names: str) -> NormBenchmark:
    """Returns a benchmark with a copy of 2 s; LayerNorm of 4 s forward and 10 s both; DyT of half of it."""
    benchmark = NormBenchmark(read(["shapes=3x5", "dtype=fp32", "rivals=none"])[0], CPU)
    for step, seconds in {"forward": 4.0, "both": 10.0}.items():
        benchmark.timings += [
            named(step, "ln", seconds=[seconds, seconds, 15 * seconds]),
            named(step, "dyt", seconds=[seconds / 2], saved=60, launching=[9.0]),
            named(step, "", "copy", seconds=[2.0, 2.0]),
            named(step, "dyt", "liger"),  # stopped before it was measured
        ]
    benchmark.timings = [one for one in benchmark.timings if one.norm in names or not one.norm]
    return benchmark


def test_rates_and_ratios() -> None:
    found = fabricated("ln", "dyt").rows()
    rows = {(row["step"], row["norm"], row["how"]): row for row in found}
    assert len(rows) == 6
    size = 3 * 5 * 4
    assert (rows["forward", "ln", "ours"]["seconds"], rows["forward", "ln", "ours"]["iqr"]) == (4.0, 28.0)
    assert rows["forward", "ln", "ours"]["bytes_per_second"] == 2 * size / 4
    assert rows["both", "ln", "ours"]["bytes_per_second"] == 5 * size / 10
    assert rows["forward", "", "copy"]["bytes_per_second"] == 2 * size / 2
    assert rows["forward", "ln", "ours"]["percent_of_copy"] == pytest.approx(50)
    assert rows["both", "ln", "ours"]["percent_of_copy"] == pytest.approx(50)
    assert (rows["both", "dyt", "ours"]["ratio"], rows["both", "dyt", "ours"]["ratio_to"]) == (0.5, "ln")
    assert rows["both", "", "copy"]["ratio"] is None
    (table,) = tables(found, "fp32", "percent_of_copy")
    assert table.title == "3x5 fp32"
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert cells["saved"] == ["", "1.00 x", ""]
    assert [time.endswith("*") for time in map(str, cells["both"])] == [False, True, False], "launched in 9 s, not in 5"


def test_without_layer_norm_the_first_is_the_reference() -> None:
    assert {row["ratio_to"] for row in fabricated("dyt").rows() if row["norm"]} == {"dyt"}
