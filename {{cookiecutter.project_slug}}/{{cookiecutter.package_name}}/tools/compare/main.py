"""Compares norms, or any other keys: trains every combination, resumes what is there, and writes the report."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...cli import read_options
from ...config.errors import require
from ...runs import hold_run
from ...utils import LOCK, hold, write_json
from ..robustness.evaluate import shift_of
from .grid import FREE_KEYS, Cell, Combination, Grid, choose_baseline, choose_metric, combine
from .jobs import Job, Local, Outcome, Slurm, run_all, visible_gpus
from .results import Comparison, Result, read_result

RECORD = "comparison.json"  # marks a folder as that of a comparison
OPTIONS: dict[str, tuple[Any, str]] = {
    "out": ("comparison", "folder of the report and, below runs/, of the runs"),
    "jobs": (0, "runs at once; 0: one for each GPU, or one"),
    "launcher": ("local", "local | slurm (uv sync --extra slurm), each run a job of its own"),
    "baseline": ("", "what the others are compared to; empty: ln, or the first value of the first key"),
    "metric": ("", "such as test/loss:min; empty: the monitored metric on the test split"),
    "shift": ("", "what evaluate.py measures of every run besides, such as corruptions; empty: nothing"),
}
SLURM = {
    "slurm.partition": ("", "passed to submitit, as any other key of its SlurmExecutor"),
    "slurm.time": ("", "minutes of each job"),
}


def compare(argv: Sequence[str]) -> Outcome:
    """Trains every combination of `argv` that is not finished, and writes `report.html` and `report.md`.

    Raises:
        UsageError: wrong options, or train.py would refuse a combination; nothing has been written then.
    """
    own = [argument for argument in argv if argument.partition("=")[0] in OPTIONS]
    slurm = [argument for argument in argv if argument.startswith("slurm.") and "=" in argument]
    swept = [argument for argument in argv if argument not in (*own, *slurm)]
    options = read_options(own, OPTIONS)
    require(bool(swept), "give a key several values, as in norm=dyt,ln seed=0,1,2; --help says more")
    grid = combine(swept)
    metric, higher_is_better = choose_metric(grid, options["metric"])
    baseline = choose_baseline(grid, options["baseline"])
    out, shift = Path(options["out"]), options["shift"]
    require(not out.exists() or out.is_dir(), f"out={out}: expected a folder, this is a file")
    free = not out.is_dir() or (out / RECORD).is_file() or {path.name for path in out.iterdir()} <= {LOCK}
    require(free, f"out={out}: it holds other files than a comparison's; name a new or an empty folder")
    for one in grid.combinations if shift else []:
        shift_of(one.cfg, shift)  # checks it
    launcher = _launcher(options, dict(argument[len("slurm.") :].split("=", 1) for argument in slurm), grid, out)
    jobs = [_job(one, out, shift) for one in grid.combinations]
    with hold(out, f"out={out}", "another comparison is running there; out=<folder> takes another"):
        left = [job for job in jobs if job.next_command()]
        for job in left:
            if job.run.is_dir():  # the run may still be training after its comparison was killed
                with hold_run(job.run):
                    pass
        print(*grid.notes, f"{len(jobs)} runs, {len(jobs) - len(left)} of them finished before", sep="\n", flush=True)
        command = shlex.join(["python", "compare.py", *argv])
        write_json(out / RECORD, {"command": command})
        outcome = run_all(jobs, launcher)
        results = _read(grid, jobs, metric, outcome)
        comparison = Comparison(grid, results, metric, higher_is_better, baseline)
        _report(comparison, jobs, outcome, command, launcher.slots, out)
    return outcome


def _launcher(options: Mapping[str, Any], slurm: Mapping[str, str], grid: Grid, out: Path) -> Local | Slurm:
    name, jobs = options["launcher"], options["jobs"]
    require(name in ("local", "slurm"), f"launcher={name}: expected local or slurm")
    require(jobs >= 0, f"jobs={jobs}: expected at least 1, or 0 for one on each GPU")
    if name == "slurm":
        return Slurm(jobs or len(grid.combinations), slurm, out / "slurm")
    require(not slurm, f"slurm.{next(iter(slurm), '')}: it needs launcher=slurm")
    trainers = [one.cfg["trainer"] for one in grid.combinations]
    if any(trainer["devices"] != "1" or trainer["num_nodes"] != 1 for trainer in trainers):
        require(jobs <= 1, f"jobs={jobs}: each run takes several devices here, so only one runs at once")
        return Local(1)
    gpus = [] if all(trainer["accelerator"] == "cpu" for trainer in trainers) else visible_gpus()
    return Local(jobs or len(gpus) or 1, gpus)


def _job(one: Combination, out: Path, shift: str) -> Job:
    """Returns the job of a combination; an earlier run is found by its digest, however it was named then."""
    run = next(iter(sorted(out.glob(f"runs/*-{one.digest}"))), out / "runs" / one.name)
    free = [argument for argument in one.argv if argument.partition("=")[0].startswith(FREE_KEYS)]
    return Job(run, one.argv, free, out / "logs", shift)


def _read(grid: Grid, jobs: Sequence[Job], metric: str, outcome: Outcome) -> dict[Cell, list[Result]]:
    """Returns the finished runs of each cell; one that cannot be read counts as failed."""
    results: dict[Cell, list[Result]] = {}
    for one, job in zip(grid.combinations, jobs, strict=True):
        if job.summary.is_file():
            try:
                results.setdefault(one.cell, []).append(read_result(job.run, one.seed, metric, job.shift))
            except ValueError as error:
                outcome.failed.setdefault(job.run.name, str(error))
    return {cell: found for cell, found in results.items() if found}


def _report(comparison: Comparison, jobs: Sequence[Job], outcome: Outcome, command: str, slots: int, out: Path) -> None:
    from .report import Report, origin, write_report  # imports matplotlib

    finished = sum(map(len, comparison.results.values()))
    state = f"{finished} of {len(jobs)} runs finished"
    state += f", {len(outcome.failed)} failed" if outcome.failed else ""
    state += "; interrupted, the same command resumes" if outcome.interrupted else ""
    details, differences = origin([one.summary for runs in comparison.results.values() for one in runs])
    notes = [*comparison.grid.notes, *differences]
    if slots > 1:
        notes.append(f"Up to {slots} runs at once: on one machine each was slower than it is alone.")
    if others := {path for path in out.glob("runs/*") if path.is_dir()} - {job.run for job in jobs}:
        notes.append(f"runs/ holds {len(others)} more, with other settings, which are no part of this report.")
    report = Report(comparison, f"{state}.", command, outcome.failed, notes, details)
    write_report(report, out)
    print(f"\n{state}", *(f"  {line}" for line in report.sentences()), sep="\n")
    for job in jobs:
        if job.run.name in outcome.failed:
            print(f"  {job.run.name} failed: {outcome.failed[job.run.name]}")
            if last := job.next_command():
                print(f"    {last.log}")
    print(f"report: {out / 'report.html'}, {out / 'report.md'}")
