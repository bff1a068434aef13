"""Whole models under each norm, of every family."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import benchmark
from {{cookiecutter.package_name}}.config import groups
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.tools.benchmark import models, timing
from {{cookiecutter.package_name}}.tools.benchmark.main import read
from {{cookiecutter.package_name}}.tools.benchmark.models import ModelBenchmark, Runner, configs
from {{cookiecutter.package_name}}.tools.benchmark.report import tables
from {{cookiecutter.package_name}}.tools.benchmark.timing import Timing

from ...conftest import each_family
from ...runs import Tiny

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "FEWEST", 2)
    monkeypatch.setattr(timing, "MOST", 2)


def small(tiny: Tiny, norm: str = "dyt") -> ModelBenchmark:
    return ModelBenchmark(*read([*tiny.argv, f"norm={norm}", "data.batch_size=2", "model.depth=1"]), CPU)


@each_family
def test_steps_of_every_norm(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["norm=ln,dyt,none", "compile=false", "device=cpu", "seconds=0.001", f"out={tmp_path}"]
    benchmark.main([*tiny.argv, *own, "data.batch_size=4"])
    (folder,) = tmp_path.iterdir()
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    rows = results["rows"]
    wanted = [(step, norm) for step in ("training", "inference") for norm in ("dyt", "ln", "none")]
    assert sorted((row["step"], row["norm"]) for row in rows) == sorted(wanted)
    assert all(row[f"{tiny.unit}_per_second"] > 0 and row["saved_bytes"] > 0 for row in rows)
    assert [row["ratio"] for row in rows if row["norm"] == "ln"] == [1.0, 1.0]
    saved = {row["norm"]: row["saved_bytes"] for row in rows}
    assert saved["none"] < saved["ln"], "by the inputs of norms"
    assert (results["finished"], results["settings"]["samples"]) == (True, 4)
    assert (folder / "plot.png").exists()
    assert f"{tiny.unit}/s" in capsys.readouterr().out


@pytest.mark.parametrize("model", groups()["model"])
def test_every_preset_has_its_sizes_without_data(model: str) -> None:
    (cfg,) = configs([f"model={model}"], ["ln"], CPU)[0].values()
    assert model.startswith(cfg.task.name)
    sizes = ("img_size", "in_chans", "num_classes", "vocab_size", "context")
    assert all(cfg.model[key] > 0 for key in sizes if key in cfg.model)
    assert models.samples_of(cfg) > 0


@each_family
def test_compiled_and_eager_share_a_model_whose_weights_stay(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        def forward(*arguments: Any) -> Any:
            graphs.append(graph)
            return graph.forward(*arguments)

        return forward

    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_(module, backend=count))
    runner = Runner(small(tiny).configs["dyt"], CPU)
    before = [parameter.clone() for parameter in runner.module.model.parameters()]
    runner.compile()
    for how, ran in ("eager", False), ("compiled", True), ("eager", False):
        graphs.clear()
        runner.case(Timing("", "training", "dyt", how)).once()
        assert bool(graphs) == ran
        graphs.clear()
        assert runner.saved(how) > 0
        assert bool(graphs) == ran, "counting saved tensors does not bypass the compiler"
    assert all(torch.equal(*pair) for pair in zip(before, runner.module.model.parameters(), strict=True))


def test_keys_of_some_norms_only() -> None:
    found, notes = configs(["norm.kernel=plain", "optim.lr=1e-3"], ["ln", "dyt"], CPU)
    assert (found["dyt"].norm.kernel, "kernel" in found["ln"].norm) == ("plain", False)
    assert {cfg.optim.lr for cfg in found.values()} == {1e-3}
    assert len(notes) == 1
    with pytest.raises(UsageError, match="colour"):
        configs(["norm.colour=red"], ["ln", "dyt"], CPU)


def test_a_model_that_compiles_in_part_is_skipped(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of training and of inference need a graph each, and only one is allowed."""
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_(module, backend="eager"))
    monkeypatch.setattr(models, "VARIANTS", 0)
    monkeypatch.setattr(models, "compile_parts", lambda parts: [part.compile() for part in parts])
    one = small(tiny)
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=1):
        one.measure()
    assert list(one.skipped) == ["dyt compiled"]
    assert {timing.how for timing in one.timings} == {"eager"}
    assert not torch._dynamo.config.fail_on_recompile_limit_hit


def test_a_model_that_memory_does_not_hold_is_skipped(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Runner:
        raise torch.OutOfMemoryError("out of memory\nby far")

    monkeypatch.setattr(models, "Runner", full)
    one = small(tiny, "ln,dyt")
    one.measure()
    assert one.skipped == {f"{norm} {how}": "out of memory" for norm in ("dyt", "ln") for how in ("eager", "compiled")}
    assert one.rows() == []


def test_throughput_and_ratios(tiny: Tiny) -> None:
    """Ratios are to LayerNorm, eager or compiled."""
    one = small(tiny, "ln,dyt")
    one.rate, one.units_per_sample = "tokens_per_second", 100
    seconds = {("ln", "eager"): 4.0, ("dyt", "eager"): 8.0, ("ln", "compiled"): 2.0, ("dyt", "compiled"): 2.0}
    one.timings = [Timing("", "training", *way, saved=3_000_000, seconds=[time]) for way, time in seconds.items()]
    rows = one.rows()
    assert [row["ratio"] for row in rows] == [1, 2, 1, 1]
    assert rows[1]["tokens_per_second"] == 2 * 100 / 8.0
    (table,) = tables(rows, "title", one.rate)
    assert [column.header for column in table.columns] == ["norm", "as", "training", "tokens/s", "x ln", "saved"]
    assert list(table.columns[-1].cells) == ["3.0 MB"] * 4
