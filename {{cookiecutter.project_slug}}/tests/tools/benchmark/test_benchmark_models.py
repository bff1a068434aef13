"""Whole models under each norm, of every family."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import benchmark
from {{cookiecutter.package_name}}.config import groups
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.tools.benchmark import models, timing
from {{cookiecutter.package_name}}.tools.benchmark.models import Place, Runner, configs
from {{cookiecutter.package_name}}.tools.benchmark.tables import model_rows, model_table
from {{cookiecutter.package_name}}.tools.benchmark.timing import Times

from ...conftest import each_family
from ...runs import Tiny

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "FEWEST", 2)
    monkeypatch.setattr(timing, "MOST", 2)


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
    assert saved["none"] < saved["ln"], "of the inputs of norms"
    assert (results["finished"], results["settings"]["samples"]) == (True, 4)
    assert (folder / "plot.png").exists()
    assert f"{tiny.unit}/s" in capsys.readouterr().out


@pytest.mark.parametrize("model", groups()["model"])
def test_every_preset_has_its_sizes(model: str) -> None:
    """Those that data would find, and are 0 where there are none."""
    (cfg,) = configs([f"model={model}"], ["ln"], CPU)[0].values()
    assert model.startswith(cfg.task.name)
    sizes = ("img_size", "in_chans", "num_classes", "vocab_size", "context")
    assert all(cfg.model[key] > 0 for key in sizes if key in cfg.model)
    assert models.samples_of(cfg) > 0


@each_family
def test_compiled_and_eager_are_one_net(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the weights stay as they are."""
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        def forward(*arguments: Any) -> Any:
            graphs.append(graph)
            return graph.forward(*arguments)

        return forward

    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_(module, backend=count))
    (cfg,) = configs([*tiny.argv, "data.batch_size=2", "model.depth=1"], ["dyt"], CPU)[0].values()
    runner = Runner(cfg, CPU)
    before = [parameter.clone() for parameter in runner.task.model.parameters()]
    runner.compile()
    for how, ran in ("eager", False), ("compiled", True), ("eager", False):
        graphs.clear()
        case = runner.case("training", how)
        case.prepare()
        case.call(None)
        assert bool(graphs) == ran
        graphs.clear()
        assert runner.saved(how) > 0
        assert bool(graphs) == ran, "what notes the saved tensors does not bypass the compiler"
    assert all(torch.equal(*pair) for pair in zip(before, runner.task.model.parameters(), strict=True))


def test_keys_that_some_norms_lack_are_theirs_alone() -> None:
    found, notes = configs(["norm.kernel=plain", "optim.lr=1e-3"], ["ln", "dyt"], CPU)
    assert (found["dyt"].norm.kernel, "kernel" in found["ln"].norm) == ("plain", False)
    assert {cfg.optim.lr for cfg in found.values()} == {1e-3}
    assert notes == ["norm.kernel: norm=ln has no such key, and is run without it"]
    with pytest.raises(UsageError, match=r"norm\.colour: there is no such key"):
        configs(["norm.colour=red"], ["ln", "dyt"], CPU)


def test_a_net_that_would_be_eager_in_part_is_skipped(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of training and of inference compile one each, and may not here."""
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_(module, backend="eager"))
    monkeypatch.setattr(models, "VARIANTS", 0)
    monkeypatch.setattr(models, "compile_parts", lambda parts: [part.compile() for part in parts])
    found, _ = configs([*tiny.argv, "data.batch_size=2", "model.depth=1"], ["dyt"], CPU)
    results = models.Results()
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=1):
        models.measure(found, CPU, True, 0.001, results, lambda share: None)
    assert list(results.skipped) == ["dyt compiled"]
    assert {place.how for place in results.times} == {"eager"}
    assert not torch._dynamo.config.fail_on_recompile_limit_hit


def test_a_net_that_memory_does_not_hold_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Runner:
        raise torch.OutOfMemoryError("out of memory\nby far")

    monkeypatch.setattr(models, "Runner", full)
    results, shares = models.Results(), list[float]()
    models.measure(configs([], ["ln", "dyt"], CPU)[0], CPU, True, 0.001, results, shares.append)
    assert results.skipped == {"ln": "out of memory", "dyt": "out of memory"}
    assert (results.times, sum(shares)) == ({}, 2 * 2 * 2)


def test_rates_and_ratios() -> None:
    """To LayerNorm as it was run, eager or compiled."""
    results = models.Results(unit="tokens", units_per_sample=100)
    seconds = {("ln", "eager"): 4.0, ("dyt", "eager"): 8.0, ("ln", "compiled"): 2.0, ("dyt", "compiled"): 2.0}
    for (norm, how), one in seconds.items():
        results.times[Place("training", norm, how)] = Times(2, [2 * one])
    results.saved[Place("training", "dyt", "eager")] = 2**21
    rows = {(row["norm"], row["how"]): row for row in model_rows(results, samples=3)}
    assert {way: row["ratio"] for way, row in rows.items()} == dict(zip(seconds, (1, 2, 1, 1), strict=True))
    assert rows["dyt", "eager"]["tokens_per_second"] == 3 * 100 / 8.0
    table = model_table(list(rows.values()), "title")
    assert [column.header for column in table.columns] == ["norm", "as", "training", "x ln", "tokens/s", "saved"]
    assert list(table.columns[-1].cells) == ["", "2.0 MiB", "", ""]
