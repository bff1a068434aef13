"""Runs commands several at a time: processes on this machine, or SLURM jobs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from rich.text import Text

from ...cli import progress
from ...config.errors import require, translate_errors
from ...utils import cpu_count

POLL = 0.2  # seconds between two checks of a running command


class Job(NamedTuple):
    """A command of the run `name`. It has succeeded when `result` exists; its output goes to `log`."""

    name: str
    argv: list[str]
    result: Path
    log: Path


class Process(subprocess.Popen[bytes]):
    def stop(self, kill: bool = False) -> None:
        """Asks it and the ranks that it started to save and end, as Ctrl-C does; or kills them."""
        if hasattr(os, "killpg") and self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL if kill else signal.SIGINT)
        elif kill:  # on Windows Ctrl-C has reached it already
            self.terminate()


class Local:
    """Processes on this machine; each slot has one of `gpus`, in turn, and its share of the CPUs."""

    def __init__(self, slots: int, gpus: Sequence[str] = ()) -> None:
        self.slots, self.gpus = slots, gpus

    def start(self, job: Job, slot: int) -> Process:
        env = os.environ | self.environment(slot)
        with job.log.open("wb") as log:  # its own session, so that Ctrl-C reaches it once, by `stop`
            options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "env": env}
            return Process(job.argv, **options, start_new_session=True)

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
        typed = {f"slurm_{key}": int(text) if text.isdecimal() else text for key, text in settings.items()}
        cluster = str(typed.pop("slurm_cluster", "slurm"))
        require(find_spec("submitit") is not None, "launcher=slurm needs submitit; `uv sync --extra slurm` installs it")
        import submitit

        with translate_errors("launcher=slurm", AssertionError, NameError, RuntimeError):
            self._executor = submitit.AutoExecutor(folder, cluster=cluster)
            self._executor.update_parameters(**typed)

    def start(self, job: Job, slot: int) -> SlurmJob:
        # Any node can unpickle subprocess.call, but perhaps not a function of this package.
        shell = ["sh", "-c", 'exec "$@" > "$0" 2>&1', str(job.log), *job.argv]
        return SlurmJob(self._executor.submit(subprocess.call, shell))


@dataclass
class Outcome:
    """The error of each failed run, by its name, and whether the comparison was interrupted."""

    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def run_all(jobs: Sequence[Job], launcher: Local | Slurm) -> Outcome:
    """Runs the jobs, `launcher.slots` at once; a failed one does not stop the others.

    Ctrl-C and SIGTERM are passed on to the running ones, which save and end; a second one kills them.
    """
    outcome, free = Outcome(), SimpleQueue[int]()
    for slot in range(launcher.slots):
        free.put(slot)

    def watch(job: Job, handle: Process | SlurmJob) -> int:
        """Returns the exit status; meanwhile shows the last line of the output, and passes on signals."""
        bar, passed_on = bars.add_task(job.name, total=None), 0
        try:
            while (status := handle.poll()) is None:
                if len(signals) > passed_on:
                    passed_on = len(signals)
                    handle.stop(kill=passed_on > 1)
                bars.update(bar, description=f"{job.name}  {last_line(job.log)[:80]}")
                time.sleep(POLL)
            return status
        finally:  # after an error here, such as a full disk, nothing trains on unwatched
            if handle.poll() is None:
                handle.stop()
            bars.remove_task(bar)

    def run(job: Job) -> None:
        slot = free.get()
        try:
            status = 0 if signals else watch(job, launcher.start(job, slot))
        finally:
            free.put(slot)
        succeeded = job.result.is_file()
        if succeeded or not signals:
            if not succeeded:
                outcome.failed[job.name] = failure(status, job.log)
            state = "done" if succeeded else f"failed: {outcome.failed[job.name]}"
            bars.console.print(f"{job.name}  {state}", highlight=False, markup=False, soft_wrap=True)
            bars.advance(total)

    with progress("{task.description}") as bars, _noted_signals() as signals:
        total = bars.add_task("runs", total=len(jobs), visible=bool(jobs))
        with ThreadPoolExecutor(launcher.slots) as pool:
            running = [pool.submit(run, job) for job in jobs]
            while wait(running, timeout=POLL).not_done:  # wakes up for a signal, wherever it arrived
                pass
        for one in running:
            one.result()  # raises what it raised
    outcome.interrupted = bool(signals)
    return outcome


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of ending this process."""
    seen: list[int] = []

    def note(number: int, _: object) -> None:
        seen.append(number)
        print("stopping: the running ones save first (Ctrl-C once more kills them)", file=sys.stderr)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
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
    return Text.from_ansi(text).plain.strip().rpartition("\n")[2].strip()


def failure(status: int, log: Path) -> str:
    """Returns in one line why a command ended with `status`."""
    if status < 0:
        return f"killed by signal {-status}{', perhaps out of memory' if status == -9 else ''}"
    return last_line(log) or f"ended with status {status} and printed nothing"
