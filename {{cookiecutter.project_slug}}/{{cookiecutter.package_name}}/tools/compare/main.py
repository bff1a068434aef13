"""Compares norms, or any other keys: trains every combination, resumes what is there, and writes the report."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...cli import Options, read_options
from ...config.errors import require
from ...runs import lock_run, resume_files
from ...utils import LOCK, cpu_count, lock_folder, write_json
from ..robustness.evaluate import shift_of
from .grid import FREE_KEYS, Cell, Combination, Grid, choose_baseline, choose_metric, combine
from .jobs import Job, Local, Outcome, Slurm, run_all, visible_gpus
from .results import Comparison, Result, read_result

ROOT = Path(__file__).resolve().parents[3]
RECORD = "comparison.json"  # marks a folder as that of a comparison
OPTIONS: Options = {
    "out": ("comparison", "folder of the report and, below runs/, of the runs"),
    "jobs": (0, "runs at once; 0: one for each GPU, or one"),
    "launcher": ("local", "local | slurm (uv sync --extra slurm), each run a job of its own"),
    "baseline": ("", "what the others are compared to; empty: ln, or the first value of the first key"),
    "metric": ("", "such as test/loss:min; empty: the monitored metric on the test split"),
    "shift": ("", "what evaluate.py measures of every run besides, such as corruptions; empty: nothing"),
}
SLURM: Options = {
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
    files = {path.name for path in out.iterdir()} if out.is_dir() else {str(out)} if out.exists() else set()
    require(RECORD in files or files <= {LOCK}, f"out={out}: holds other files; name a new or an empty folder")
    for one in grid.combinations if shift else []:
        shift_of(one.cfg, shift)  # checks it
    launcher = _launcher(options, dict(argument[len("slurm.") :].split("=", 1) for argument in slurm), grid, out)
    runs = [_run_of(one, out) for one in grid.combinations]
    command = shlex.join(["python", "compare.py", *argv])
    with lock_folder(out, f"out={out}", "another comparison is running there; out=<folder> takes another"):
        left = [(one, run) for one, run in zip(grid.combinations, runs, strict=True) if not _finished(run)]
        for _, run in left:
            if run.is_dir():
                with lock_run(run):  # refuses one that still trains, after its comparison was killed
                    pass
                if not resume_files(run):  # it was killed before its first checkpoint; train.py makes the folder itself
                    shutil.rmtree(run)
        print(*grid.notes, f"{len(runs)} runs, {len(runs) - len(left)} of them finished before", sep="\n", flush=True)
        write_json(out / RECORD, {"command": command})
        (out / "logs").mkdir(exist_ok=True)
        outcome = run_all([_training(one, run, out) for one, run in left], launcher)
        if shift and not outcome.interrupted:
            trained = [run for run in runs if _finished(run)]
            measured = run_all([job for run in trained if (job := _evaluation(run, shift, out))], launcher)
            outcome = Outcome(outcome.failed | measured.failed, measured.interrupted)
        results: dict[Cell, list[Result]] = {}
        for one, run in zip(grid.combinations, runs, strict=True):
            if _finished(run):
                try:
                    results.setdefault(one.cell, []).append(read_result(run, one.seed, metric, shift))
                except ValueError as error:
                    outcome.failed.setdefault(run.name, str(error))
        comparison = Comparison(grid, results, metric, higher_is_better, baseline)
        _report(comparison, runs, outcome, command, launcher.slots, out)
    return outcome


def _launcher(options: Mapping[str, Any], slurm: Mapping[str, str], grid: Grid, out: Path) -> Local | Slurm:
    name, jobs = options["launcher"], options["jobs"]
    require(name in ("local", "slurm"), f"launcher={name}: expected local or slurm")
    most = 1000 if name == "slurm" else max(2, cpu_count())
    require(0 <= jobs <= most, f"jobs={jobs}: expected 1 to {most}, or 0 for one on each GPU")
    if name == "slurm":
        return Slurm(jobs or len(grid.combinations), slurm, out / "slurm")
    require(not slurm, f"slurm.{next(iter(slurm), '')}: it needs launcher=slurm")
    trainers = [one.cfg["trainer"] for one in grid.combinations]
    if any(trainer["devices"] != "1" or trainer["num_nodes"] != 1 for trainer in trainers):
        require(jobs <= 1, f"jobs={jobs}: each run takes several devices here, so only one runs at once")
        return Local(1)
    gpus = [] if all(trainer["accelerator"] == "cpu" for trainer in trainers) else visible_gpus()
    return Local(jobs or len(gpus) or 1, gpus)


def _run_of(one: Combination, out: Path) -> Path:
    """Returns the run of a combination; an earlier one is found by its digest, however it was named then."""
    return next(iter(sorted(out.glob(f"runs/*-{one.digest}"))), out / "runs" / one.name)


def _finished(run: Path) -> bool:
    return (run / "summary.json").is_file()  # which train.py writes last


def _training(one: Combination, run: Path, out: Path) -> Job:
    """Returns the job that starts or resumes a run."""
    argv = [*one.argv, f"name={run.name}", f"runs={run.parent}"]
    if resume_files(run):
        argv = [f"resume={run}", *(text for text in one.argv if text.partition("=")[0].startswith(FREE_KEYS))]
    return _script("train", argv, run / "summary.json", out / "logs" / f"{run.name}.log")


def _evaluation(run: Path, shift: str, out: Path) -> Job | None:
    """Returns the job that measures a finished run under a shift; None if that is done, or it diverged."""
    result = run / f"shift-{shift}.json"
    if result.is_file() or json.loads((run / "summary.json").read_bytes()).get("diverged"):
        return None
    argv = [f"checkpoint={run}", f"shift={shift}"]
    return _script("evaluate", argv, result, out / "logs" / f"{run.name}.shift.log")


def _script(name: str, argv: Sequence[str], result: Path, log: Path) -> Job:
    return Job(result.parent.name, [sys.executable, "-u", str(ROOT / f"{name}.py"), *argv], result, log)


def _report(
    comparison: Comparison, runs: Sequence[Path], outcome: Outcome, command: str, slots: int, out: Path
) -> None:
    from .report import Report, write_report  # imports matplotlib

    state = f"{sum(map(len, comparison.results.values()))} of {len(runs)} runs finished"
    state += f", {len(outcome.failed)} failed" if outcome.failed else ""
    state += "; interrupted, the same command resumes" if outcome.interrupted else ""
    notes = list(comparison.grid.notes)
    if slots > 1:
        notes.append(f"Up to {slots} runs at once: on one machine each was slower than it is alone.")
    if others := {path for path in out.glob("runs/*") if path.is_dir()} - set(runs):
        notes.append(f"runs/ holds {len(others)} more, with other settings, which are no part of this report.")
    report = Report(comparison, f"{state}.", command, outcome.failed, notes)
    write_report(report, out)
    print(f"\n{state}", *(f"  {line}" for line in report.sentences()), sep="\n")
    for name, error in outcome.failed.items():
        print(f"  {name} failed: {error}", *(f"    {log}" for log in out.glob(f"logs/{name}.*")), sep="\n")
    print(f"report: {out / 'report.html'}, {out / 'report.md'}")
