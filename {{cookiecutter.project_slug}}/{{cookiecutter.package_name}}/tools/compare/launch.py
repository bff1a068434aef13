"""Where commands run: processes of this machine, or jobs of a SLURM cluster."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ...errors import UsageError
from ...utils import cpu_count


class Handle(Protocol):
    """A command on its way."""

    def poll(self) -> int | None:
        """Its exit status, negative for a signal, or None while it runs."""

    def stop(self) -> None:
        """Asks it to save and end, as Ctrl-C does."""

    def kill(self) -> None: ...


class Launcher(Protocol):
    slots: int  # commands at once

    def start(self, command: list[str], log: Path, slot: int) -> Handle: ...


class Process:
    """In a session of its own, so that it and the ranks it starts are stopped together, and once."""

    def __init__(self, command: list[str], log: Path, env: Mapping[str, str]) -> None:
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, start_new_session=True
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        self._process.wait()

    def _signal(self, number: int) -> None:
        if self._process.poll() is not None:
            return
        if hasattr(os, "killpg"):
            os.killpg(self._process.pid, number)
        elif number != signal.SIGINT:  # on Windows Ctrl-C has reached it already
            self._process.terminate()


class Local:
    """`slots` processes at once, with one of `gpus` each in turn, and their share of the CPUs."""

    def __init__(self, slots: int, gpus: list[str]) -> None:
        self.slots, self.gpus = slots, gpus

    def start(self, command: list[str], log: Path, slot: int) -> Process:
        return Process(command, log, {**os.environ, **self.settings(slot)})

    def settings(self, slot: int) -> dict[str, str]:
        """Environment variables of what runs in this slot."""
        settings = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        if self.slots > 1 and "OMP_NUM_THREADS" not in os.environ:
            settings["OMP_NUM_THREADS"] = str(max(1, cpu_count() // self.slots))
        return settings


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # takes a second to import, which a mistyped key should not cost

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


class SlurmJob:
    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        return 1 if self._job.exception() is not None else int(self._job.result())

    def stop(self) -> None:
        self._job.cancel()

    def kill(self) -> None:
        self._job.cancel()


class Slurm:
    """Jobs of a SLURM cluster, through submitit.

    Args:
        slots: jobs that are submitted at once.
        settings: of submitit's SlurmExecutor (`partition`, `time`, ...), and `cluster`: `slurm`, or `local` to try it
            without one.
        folder: for submitit's own files.

    Raises:
        UsageError: submitit is not installed, there is no cluster, or a setting that it does not know.
    """

    def __init__(self, slots: int, settings: Mapping[str, str], folder: Path) -> None:
        self.slots = slots
        try:
            import submitit
        except ImportError as error:
            raise UsageError("launcher=slurm: it needs submitit; uv sync --extra slurm installs it") from error
        others = {f"slurm_{key}": int(text) if text.isdecimal() else text for key, text in settings.items()}
        cluster = others.pop("slurm_cluster", "slurm")
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=str(cluster))
            self._executor.update_parameters(**others)
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
            raise UsageError(f"launcher=slurm: {str(error).splitlines()[0]}") from error

    def start(self, command: list[str], log: Path, slot: int) -> SlurmJob:
        script = 'log=$1; shift; exec "$@" > "$log" 2>&1'  # subprocess.call is found on any node, this package may not
        return SlurmJob(self._executor.submit(subprocess.call, ["sh", "-c", script, "sh", str(log), *command]))
