"""What is left to do for a run: commands, one after the other, each known to be done by the file that it leaves."""

import json
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runs import resume_files

ROOT = Path(__file__).resolve().parents[2]
TAIL = 8192  # bytes of a log in which its last line is looked for


@dataclass(frozen=True)
class Stage:
    command: list[str]
    result: Path
    log: Path
    attempt: str  # train, resume or shift


@dataclass(frozen=True)
class Job:
    """A run of a comparison.

    Args:
        run: its directory, there or not.
        argv: overrides that start it.
        free: overrides that it may go on with.
        logs: the folder for what its commands print.
        shift: what evaluate.py is asked for once it is trained; empty for nothing.
        scripts: where train.py and evaluate.py are.
    """

    run: Path
    argv: Sequence[str]
    free: Sequence[str]
    logs: Path
    shift: str = ""
    scripts: Path = ROOT

    @property
    def trained(self) -> bool:
        return (self.run / "summary.json").is_file()

    @property
    def diverged(self) -> bool:
        return self.trained and bool(json.loads((self.run / "summary.json").read_bytes()).get("diverged"))

    def next(self) -> Stage | None:
        """The next stage, or None where all is done."""
        if not self.trained:
            starts = [*self.argv, f"name={self.run.name}", f"runs={self.run.parent}"]
            goes_on = bool(resume_files(self.run))
            argv = [f"resume={self.run}", *self.free] if goes_on else starts
            log = self.logs / f"{self.run.name}.log"
            return Stage(self._python("train", argv), self.run / "summary.json", log, "resume" if goes_on else "train")
        result = self.run / f"shift-{self.shift}.json"
        if self.shift and not result.is_file() and not self.diverged:
            argv = [f"checkpoint={self.run}", f"shift={self.shift}"]
            log = self.logs / f"{self.run.name}.shift.log"
            return Stage(self._python("evaluate", argv), result, log, "shift")
        return None

    def clear(self) -> None:
        """Removes what a run left that was killed before its first checkpoint, since train.py makes its directory."""
        if self.run.is_dir() and not self.trained and not resume_files(self.run):
            shutil.rmtree(self.run)

    def _python(self, script: str, argv: Sequence[str]) -> list[str]:
        return [sys.executable, "-u", str(self.scripts / f"{script}.py"), *argv]


def last_line(log: Path) -> str:
    """Of what a command has printed, without colours; empty if it has printed nothing."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text).splitlines()]
    return next((line for line in reversed(lines) if line), "")


def failure(status: int, log: Path) -> str:
    """Why a command ended with `status`, in one line."""
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return f"killed by {name}{', out of memory perhaps' if name == 'SIGKILL' else ''}"
    return last_line(log) or f"it ended with status {status} and printed nothing"
