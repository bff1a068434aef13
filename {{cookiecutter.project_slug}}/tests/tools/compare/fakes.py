"""A launcher whose runs take no time, and the results of such runs."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from {{cookiecutter.package_name}}.tools.compare.grid import Cell, choose_baseline, combine
from {{cookiecutter.package_name}}.tools.compare.jobs import Job
from {{cookiecutter.package_name}}.tools.compare.results import Comparison, Result

LEVELS = {"dyt": 0.97, "ln": 0.95, "bn": 0.92}


class Handle:
    """A command that has ended with `status`, or waits for `stop`."""

    def __init__(self, status: int | None, on_stop: Callable[[], object] = lambda: None) -> None:
        self.status, self.on_stop = status, on_stop

    def poll(self) -> int | None:
        return self.status

    def stop(self, kill: bool = False) -> None:
        self.status = -9 if kill else 130
        self.on_stop()


class FakeLauncher:
    """Writes what train.py and evaluate.py would write; fails or waits for the norms named so."""

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self.fails: set[str] = set()
        self.waits: set[str] = set()
        self.started: list[dict[str, str]] = []  # the arguments of each command, with its script

    def start(self, job: Job, slot: int) -> Handle:
        script = Path(job.argv[2])
        assert script.is_file()
        run, given = job.result.parent, dict(argument.split("=", 1) for argument in job.argv[3:])
        self.started.append({"script": script.stem, **given})
        norm = run.name.partition("-")[0]
        job.log.write_text(f"epoch 1/2\n{'RuntimeError: too large' if norm in self.fails else ''}\n\n")
        if norm in self.fails:
            return Handle(1)
        if script.stem == "evaluate":
            job.result.write_text("{}")
            return Handle(0)
        (run / "checkpoints").mkdir(parents=True, exist_ok="resume" in given)
        (run / "config.yaml").write_text("")
        if norm in self.waits:
            return Handle(None, on_stop=(run / "checkpoints" / "last.ckpt").touch)
        (run / "metrics.csv").write_text("step,tag,value\n1,train/loss,2.0\n")
        summary = {"test/acc": LEVELS[norm], "test/loss": 1.0, "seconds": 3.0, "versions": {"torch": "2.9"}}
        job.result.write_text(json.dumps(summary))
        return Handle(0)


def result(value: float | None, seed: int, alphas: Sequence[float] = (), shift: dict[str, Any] | None = None) -> Result:
    level, steps = value or 0.0, range(5, 105, 5)
    curves = {
        "train/loss": {step: 2 / step for step in steps},
        "val/loss": {step: 3 / step for step in steps},
        "val/acc": {step: level - 1 / step for step in steps},
        **{f"alpha/{depth:02}_blocks.{depth}.norm": {0: 0.5, 100: alpha} for depth, alpha in enumerate(alphas)},
    }
    summary = {"seconds": 60.0, "tokens_per_second": 1500.0, "parameters": 1000 + seed, "peak_memory_bytes": 3 * 2**20}
    return Result(seed, summary, value, curves, shift)


def compared(argv: Sequence[str], value: Callable[[Mapping[str, str], int], float | None], **more: Any) -> Comparison:
    """Returns the comparison of `argv` in which each run has the `value` of its cell and seed."""
    grid = combine(argv)
    results: dict[Cell, list[Result]] = {}
    for one in grid.combinations:
        alphas = [0.5, 0.7] if one.cfg["norm"]["name"] in ("dyt", "derf") else []
        found = result(value(dict(one.cell), one.seed), one.seed, alphas, **more)
        results.setdefault(one.cell, []).append(found)
    return Comparison(grid, results, "test/acc", True, choose_baseline(grid, ""))
