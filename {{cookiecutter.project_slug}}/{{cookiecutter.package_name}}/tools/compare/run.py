"""All jobs of a comparison: so many at once, none stopped by another's end, all stopped by Ctrl-C."""

import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.progress import Progress, TaskID

from ...cli import progress
from .jobs import Job, Stage, failure, last_line
from .launch import Handle, Launcher

POLL = 0.2  # seconds between two looks at what runs
TRAINED = re.compile(r"(?:epoch|step) +(\d+)/(\d+)\s*(?:step \d+\s*)?(.*)")  # what train.py prints as it goes
STOPPING = "stopping: what runs is saved first (Ctrl-C once more kills it)"


@dataclass
class Outcome:
    """What became of the jobs: the error of each that failed, by the name of its run."""

    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


@dataclass
class _Running:
    job: Job
    stage: Stage
    handle: Handle
    bar: TaskID


def run_all(jobs: Sequence[Job], launcher: Launcher) -> Outcome:
    """Does what is left of every job.

    Ctrl-C, or the end of the terminal, is handed on to what runs, which saves and ends; a second one kills it.
    """
    outcome = Outcome()
    waiting = [job for job in jobs if job.next() is not None]
    if not waiting:
        return outcome
    running: dict[int, _Running] = {}
    with progress("{task.description}") as bars, _signals() as signals, _ended(running):
        total = bars.add_task("runs", total=len(waiting))

        def start(job: Job, stage: Stage, slot: int) -> None:
            if stage.attempt == "train":
                job.clear()
            stage.log.parent.mkdir(parents=True, exist_ok=True)
            handle = launcher.start(stage.command, stage.log, slot)
            running[slot] = _Running(job, stage, handle, bars.add_task(job.run.name, total=None))

        while waiting or running:
            if signals and not outcome.interrupted:
                outcome.interrupted = True
                waiting.clear()
                bars.console.print(STOPPING)
                for one in running.values():
                    one.handle.stop()
            if len(signals) > 1:
                for one in running.values():
                    one.handle.kill()
                break
            while waiting and len(running) < launcher.slots:
                job = waiting.pop(0)
                stage = job.next()
                assert stage is not None
                start(job, stage, next(slot for slot in range(launcher.slots) if slot not in running))
            for slot, one in list(running.items()):
                status = one.handle.poll()
                if status is None:
                    _show(bars, one)
                    continue
                del running[slot]
                bars.remove_task(one.bar)
                stage = one.job.next() if one.stage.result.is_file() else one.stage
                if stage is not None and stage is not one.stage and not outcome.interrupted:
                    start(one.job, stage, slot)
                elif stage is None or not outcome.interrupted:
                    if stage is not None:
                        outcome.failed[one.job.run.name] = failure(status, one.stage.log)
                    said = "done" if stage is None else f"failed: {outcome.failed[one.job.run.name]}"
                    bars.console.print(f"{one.job.run.name}  {said}", highlight=False, markup=False, soft_wrap=True)
                    bars.advance(total)
            time.sleep(POLL if running else 0)
    return outcome


def _show(bars: Progress, one: _Running) -> None:
    if match := TRAINED.match(last_line(one.stage.log)):
        text = f"{one.job.run.name}  {match[3]}"
        bars.update(one.bar, completed=int(match[1]), total=int(match[2]), description=text)


@contextmanager
def _ended(running: Mapping[int, _Running]) -> Iterator[None]:
    """Leaves nothing that trains unwatched where this process cannot go on, for want of disk space say."""
    try:
        yield
    finally:
        for one in running.values():
            one.handle.stop()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Those that have asked this process to end, which ends later by itself: what it has started comes first."""
    seen: list[int] = []

    def note(number: int, _: Any) -> None:
        seen.append(number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
