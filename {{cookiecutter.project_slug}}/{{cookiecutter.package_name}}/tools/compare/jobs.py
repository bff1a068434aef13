"""Trains and measures the runs of a comparison: processes on this machine, or SLURM jobs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import TaskID

from ...cli import progress
from ...config.errors import UsageError
from ...runs import resume_files
from ...utils import cpu_count

ROOT = Path(__file__).resolve().parents[3]
POLL = 0.2  # seconds between two looks at the running commands


class Command(NamedTuple):
    """A script with its arguments. It has succeeded when `result` exists; its output goes to `log`."""

    argv: list[str]
    result: Path
    log: Path


@dataclass(frozen=True)
class Job:
    """A run of a comparison: its training, and what evaluate.py measures of it."""

    run: Path  # its directory, which need not exist yet
    argv: Sequence[str]  # the overrides that start it
    free: Sequence[str]  # those of them that may change when it is resumed
    logs: Path  # the folder for the output of its commands
    shift: str = ""  # measured by evaluate.py after training; empty for none

    @property
    def summary(self) -> Path:
        """summary.json, which train.py writes last."""
        return self.run / "summary.json"

    def next_command(self) -> Command | None:
        """Returns what is to be done next: train or resume, then evaluate; None if all is done."""
        if not self.summary.is_file():
            argv = [*self.argv, f"name={self.run.name}", f"runs={self.run.parent}"]
            if resume_files(self.run):
                argv = [f"resume={self.run}", *self.free]
            return self._command("train", argv, self.summary, f"{self.run.name}.log")
        result = self.run / f"shift-{self.shift}.json"
        if not self.shift or result.is_file() or json.loads(self.summary.read_bytes()).get("diverged"):
            return None
        argv = [f"checkpoint={self.run}", f"shift={self.shift}"]
        return self._command("evaluate", argv, result, f"{self.run.name}.shift.log")

    def clear(self) -> None:
        """Removes a run that was killed before its first checkpoint, because train.py makes the directory itself."""
        if self.run.is_dir() and not self.summary.is_file() and not resume_files(self.run):
            shutil.rmtree(self.run)

    def _command(self, script: str, argv: Sequence[str], result: Path, log: str) -> Command:
        return Command([sys.executable, "-u", str(ROOT / f"{script}.py"), *argv], result, self.logs / log)


class Process(subprocess.Popen[bytes]):
    """A process in a session of its own, so that a signal reaches it and the ranks that it started, once."""

    def __init__(self, command: Command, env: Mapping[str, str]) -> None:
        with command.log.open("wb") as log:
            super().__init__(
                command.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )

    def stop(self, kill: bool = False) -> None:
        """Asks it to save and end, as Ctrl-C does; or kills it."""
        if hasattr(os, "killpg") and self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL if kill else signal.SIGINT)
        elif kill:  # on Windows Ctrl-C has reached it already
            self.terminate()


class Local:
    """Processes on this machine; each slot has one of `gpus`, in turn, and its share of the CPUs."""

    def __init__(self, slots: int, gpus: Sequence[str] = ()) -> None:
        self.slots, self.gpus = slots, gpus

    def start(self, command: Command, slot: int) -> Process:
        return Process(command, {**os.environ, **self.environment(slot)})

    def environment(self, slot: int) -> dict[str, str]:
        """Returns the variables that a slot sets."""
        variables = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        if self.slots > 1 and "OMP_NUM_THREADS" not in os.environ:
            variables["OMP_NUM_THREADS"] = str(max(1, cpu_count() // self.slots))
        return variables


def visible_gpus() -> list[str]:
    """Returns the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


class SlurmJob(NamedTuple):
    """A job of submitit, with the methods of a Process."""

    job: Any

    def poll(self) -> int | None:
        """Returns the exit status, or None while it is queued or runs."""
        if not self.job.done():
            return None
        return 1 if self.job.exception() is not None else int(self.job.result())

    def stop(self, kill: bool = False) -> None:
        self.job.cancel()


class Slurm:
    """SLURM jobs, through submitit.

    `settings` are those of submitit's SlurmExecutor (`partition`, `time`, ...), and `cluster`: `slurm`, or `local` to
    try it without one. Raises UsageError if submitit or SLURM is missing, or a setting is unknown.
    """

    def __init__(self, slots: int, settings: Mapping[str, str], folder: Path) -> None:
        self.slots = slots
        try:
            import submitit
        except ImportError as error:
            raise UsageError("launcher=slurm needs submitit; `uv sync --extra slurm` installs it") from error
        typed = {f"slurm_{key}": int(text) if text.isdecimal() else text for key, text in settings.items()}
        cluster = str(typed.pop("slurm_cluster", "slurm"))
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster)
            self._executor.update_parameters(**typed)
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
            raise UsageError(f"launcher=slurm: {str(error).splitlines()[0]}") from error

    def start(self, command: Command, slot: int) -> SlurmJob:
        # Any node can unpickle subprocess.call, but perhaps not a function of this package.
        shell = ["sh", "-c", 'log=$1; shift; exec "$@" > "$log" 2>&1', "sh", str(command.log), *command.argv]
        return SlurmJob(self._executor.submit(subprocess.call, shell))


@dataclass
class Outcome:
    """The error of each failed run, by its name, and whether the comparison was interrupted."""

    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


class _Running(NamedTuple):
    job: Job
    command: Command
    handle: Process | SlurmJob
    bar: TaskID


def run_all(jobs: Sequence[Job], launcher: Local | Slurm) -> Outcome:
    """Does what is left of every job, `launcher.slots` at once; a failed one does not stop the others.

    Ctrl-C and SIGTERM are passed on to the running commands, which save and end; a second one kills them.
    """
    outcome = Outcome()
    waiting = [job for job in jobs if job.next_command()]
    if not waiting:
        return outcome
    running: dict[int, _Running] = {}
    stopped = 0  # signals that were passed on
    with progress("{task.description}") as bars, _noted_signals() as signals:
        total = bars.add_task("runs", total=len(waiting))
        try:
            while waiting or running:
                if len(signals) > stopped:
                    stopped = len(signals)
                    waiting.clear()
                    bars.console.print("stopping: the running ones save first (Ctrl-C once more kills them)")
                    for one in running.values():
                        one.handle.stop(kill=stopped > 1)
                for slot in range(launcher.slots):
                    if waiting and slot not in running and (command := (job := waiting.pop(0)).next_command()):
                        command.log.parent.mkdir(parents=True, exist_ok=True)
                        job.clear()
                        bar = bars.add_task(job.run.name, total=None)
                        running[slot] = _Running(job, command, launcher.start(command, slot), bar)
                for slot, (job, command, handle, bar) in list(running.items()):
                    status, name = handle.poll(), job.run.name
                    if status is None:
                        bars.update(bar, description=f"{name}  {last_line(command.log)[:80]}")
                        continue
                    del running[slot]
                    bars.remove_task(bar)
                    succeeded = command.result.is_file()
                    if succeeded and job.next_command() and not stopped:
                        waiting.insert(0, job)
                    elif succeeded or not stopped:
                        if not succeeded:
                            outcome.failed[name] = failure(status, command.log)
                        state = "done" if succeeded else f"failed: {outcome.failed[name]}"
                        bars.console.print(f"{name}  {state}", highlight=False, markup=False, soft_wrap=True)
                        bars.advance(total)
                time.sleep(POLL if running else 0)
        finally:  # after an error here, such as a full disk, nothing trains on unwatched
            for one in running.values():
                one.handle.stop()
    outcome.interrupted = stopped > 0
    return outcome


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Collects SIGINT, SIGTERM and SIGHUP instead of ending this process."""
    seen: list[int] = []
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, lambda number, _: seen.append(number)) for number in numbers}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def last_line(log: Path) -> str:
    """Returns the last line that is not empty, without terminal colours."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        text = file.read().decode("utf-8", errors="replace")
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text).strip().rpartition("\n")[2].strip()


def failure(status: int, log: Path) -> str:
    """Returns in one line why a command ended with `status`."""
    if status < 0:
        return f"killed by signal {-status}{', perhaps out of memory' if status == -9 else ''}"
    return last_line(log) or f"ended with status {status} and printed nothing"
