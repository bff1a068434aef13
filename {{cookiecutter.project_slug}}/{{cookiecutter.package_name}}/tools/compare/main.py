"""What `compare.py` does: checks everything, does what is left of every run, and writes the report of what there is."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...cli import read_options
from ...errors import require
from ...runs import hold_run
from ...utils import LOCK, hold, write_json
from ..robustness.evaluate import shift_of
from .comparison import Comparison, choose_baseline
from .grid import FREE, Cell, Combination, Grid, combine, tracked_metric
from .jobs import ROOT, Job
from .launch import Launcher, Local, Slurm, visible_gpus
from .results import Result, read_result
from .run import Outcome, run_all

RECORD = "comparison.json"  # by which a folder is known to be a comparison's
OPTIONS: dict[str, tuple[Any, str]] = {
    "out": ("comparison", "folder for the report and, below runs/, the runs"),
    "jobs": (0, "runs at once; 0: one for each GPU, or one"),
    "launcher": ("local", "local | slurm (uv sync --extra slurm), each run a job of its own"),
    "baseline": ("", "what the others are compared to; empty: ln, or the first value of the first key"),
    "metric": ("", "such as test/loss:min; empty: what the best checkpoint is best at, on test"),
    "shift": ("", "what evaluate.py measures of every run besides, such as corruptions; empty: nothing"),
}
SLURM = {
    "slurm.partition": ("", "handed to submitit, and so is any other key of its SlurmExecutor"),
    "slurm.time": ("", "minutes of each job"),
}


def compare(argv: Sequence[str], scripts: Path = ROOT) -> Outcome:
    """Trains every combination of `argv` that is not there yet, and writes `report.md` and `report.html`.

    Args:
        scripts: where train.py and evaluate.py are.

    Raises:
        UsageError: wrong options, or a combination that train.py would refuse; nothing is left behind.
    """
    ours = [argument for argument in argv if argument.partition("=")[0] in OPTIONS]
    slurm = dict(argument.removeprefix("slurm.").split("=", 1) for argument in argv if _is_slurm(argument))
    theirs = [argument for argument in argv if argument not in ours and not _is_slurm(argument)]
    options = read_options(ours, OPTIONS)
    require(bool(theirs), "give some key several values, as in norm=dyt,ln seed=0,1,2; --help says more")
    grid = combine(theirs)
    metric, higher_is_better = tracked_metric(grid, options["metric"])
    baseline = choose_baseline(grid, options["baseline"])
    out = Path(options["out"])
    require(not out.exists() or out.is_dir(), f"out={out}: expected a folder, this is a file")
    require(_is_ours(out), f"out={out}: it holds other things than a comparison; name a new or an empty folder")
    shift = options["shift"]
    for one in grid.combinations if shift else []:
        shift_of(one.cfg, shift)
    launcher = _launcher(options["launcher"], options["jobs"], slurm, grid, out)
    jobs = {one.name: _job(one, out, theirs, shift, scripts) for one in grid.combinations}
    with hold(out, f"out={out}", "another comparison is at work there; out=<folder> takes another"):
        for job in jobs.values():
            if job.run.is_dir() and not job.trained:
                with hold_run(job.run):  # of a comparison that was killed, runs may still be trained
                    pass
        for note in grid.notes:
            print(note)
        done = sum(job.next() is None for job in jobs.values())
        print(f"{len(jobs)} runs, {done} of them finished before; {launcher.slots} at once", flush=True)
        command = shlex.join(["python", "compare.py", *argv])
        at_once = _record(out, command, list(jobs.values()), launcher.slots)
        outcome = run_all(list(jobs.values()), launcher)
        results = _results(grid, jobs, metric, shift, outcome)
        comparison = Comparison(grid, results, metric, higher_is_better, baseline)
        _report(comparison, jobs, outcome, out, command, at_once)
    return outcome


def _is_ours(out: Path) -> bool:
    """Whether `out` is an earlier comparison, or has nothing that a report might replace."""
    return (out / RECORD).is_file() or not out.is_dir() or not {path.name for path in out.iterdir()} - {LOCK}


def _is_slurm(argument: str) -> bool:
    return argument.startswith("slurm.") and "=" in argument


def _launcher(name: str, jobs: int, slurm: Mapping[str, str], grid: Grid, out: Path) -> Launcher:
    require(name in ("local", "slurm"), f"launcher={name}: choose local or slurm")
    require(jobs >= 0, f"jobs={jobs}: expected at least 1, or 0 for one on each GPU")
    if name == "slurm":
        return Slurm(jobs or len(grid.combinations), slurm, out / "slurm")
    require(not slurm, f"slurm.{next(iter(slurm), '')}: it wants launcher=slurm")
    trainers = [one.cfg["trainer"] for one in grid.combinations]
    if any(trainer["devices"] != "1" or trainer["num_nodes"] != 1 for trainer in trainers):
        require(jobs <= 1, f"jobs={jobs}: a run takes several devices here, so there is one at once")
        return Local(1, [])
    gpus = [] if all(trainer["accelerator"] == "cpu" for trainer in trainers) else visible_gpus()
    return Local(jobs or len(gpus) or 1, gpus)


def _job(one: Combination, out: Path, argv: Sequence[str], shift: str, scripts: Path) -> Job:
    """The run that `one` is, found by its digest whatever it was called when other keys were swept."""
    folder = out / "runs"
    found = sorted(folder.glob(f"*-{one.digest}"))
    free = [argument for argument in one.argv if argument.partition("=")[0].startswith(FREE)]
    return Job(found[0] if found else folder / one.name, one.argv, free, out / "logs", shift, scripts)


def _record(out: Path, command: str, jobs: Sequence[Job], slots: int) -> dict[str, int]:
    """Writes RECORD: the last command, and of every run how many ran at once. Returns the latter."""
    file = out / RECORD
    try:
        before = json.loads(file.read_text(encoding="utf-8"))["at_once"]
    except (OSError, ValueError, KeyError, TypeError):
        before = {}
    at_once = before | {job.run.name: slots for job in jobs if not job.trained}
    runs = {job.run.name: list(job.argv) for job in jobs}
    write_json(file, {"command": command, "runs": runs, "at_once": at_once})
    return at_once


def _results(
    grid: Grid, jobs: Mapping[str, Job], metric: str, shift: str, outcome: Outcome
) -> dict[Cell, list[Result]]:
    """The finished runs of each cell; one that lacks the metric is told with the failed ones."""
    results: dict[Cell, list[Result]] = {}
    for one in grid.combinations:
        job = jobs[one.name]
        if job.trained:
            result = read_result(job.run, one.seed, metric, shift)
            if isinstance(result, Result):
                results.setdefault(one.cell, []).append(result)
            else:
                outcome.failed.setdefault(job.run.name, result)
    return results


def _report(
    comparison: Comparison, jobs: Mapping[str, Job], outcome: Outcome, out: Path, command: str, at_once: dict[str, int]
) -> None:
    from .report import Report  # imports matplotlib
    from .write import how_it_was_made, write_report

    finished = sum(map(len, comparison.results.values()))
    state = f"{finished} of {len(jobs)} runs finished"
    state += f", {len(outcome.failed)} failed" if outcome.failed else ""
    state += "; interrupted, and the same command goes on" if outcome.interrupted else ""
    details, differences = how_it_was_made([one.summary for runs in comparison.results.values() for one in runs])
    notes = [*comparison.grid.notes, *differences]
    most = max((at_once.get(job.run.name, 1) for job in jobs.values()), default=1)
    if most > 1:
        notes.append(f"Up to {most} runs were made at once, so their seconds and rates are not those of one alone.")
    folders = [path for path in (out / "runs").glob("*") if path.is_dir()]
    if others := len(folders) - sum(job.run in folders for job in jobs.values()):
        notes.append(f"runs/ holds {others} more, of other settings, which are no part of this.")
    report = Report(comparison, f"{state}.", command, outcome.failed, notes, details)
    write_report(report, out)
    print(f"\n{state}")
    for line in report.sentences():
        print(f"  {line}")
    left = {job.run.name: job.next() for job in jobs.values()}  # of one that failed, what failed
    for run, line in outcome.failed.items():
        print(f"  {run} failed: {line}")
        if (stage := left[run]) is not None:
            print(f"    {stage.log}")
    print(f"report: {out / 'report.html'}, {out / 'report.md'}")
