"""Where a benchmark leaves its results, and what has to be known to compare them with others."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any, Generic

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import first_line
from ...runs import git_state, versions
from ...utils import cpu_count, write_json, write_text
from .rivals import RIVALS
from .timing import Key, Times

NARROWEST = 140  # characters, of what is no terminal


@dataclass
class Results(Generic[Key]):
    """What was measured so far.

    Args:
        saved: bytes that are kept for backward, beside the parameters.
        peak: bytes that are held at most; None where PyTorch does not count them.
        skipped: what was not measured, and why.
    """

    times: dict[Key, Times] = field(default_factory=dict)
    saved: dict[Key, int] = field(default_factory=dict)
    peak: dict[Key, int | None] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def skip(self, what: str, error: Exception) -> None:
        """For the first line of `error`."""
        self.skipped[what] = first_line(error)


def conditions(device: torch.device) -> dict[str, Any]:
    """Machine, versions and code. A load above 0 on a CPU says that others were at work when it began."""
    machine = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpus": cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }
    installed = {}
    for package in ("triton", *(rival.package for rival in RIVALS.values())):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"machine": machine, "versions": versions() | installed, "git": git_state()}


def write(folder: Path, content: Mapping[str, Any], tables: Sequence[Table], notes: Sequence[str]) -> None:
    """Prints tables and notes, and writes `table.txt` and `results.json`."""
    text = StringIO()
    consoles = [Console(highlight=False), Console(file=text, highlight=False, width=NARROWEST)]
    if not consoles[0].is_terminal:
        consoles[0].width = max(consoles[0].width, NARROWEST)
    for console in consoles:
        for table in tables:
            console.print(table)
            console.print()
        for note in notes:
            console.print(Text(note), soft_wrap=True)
    write_json(folder / "results.json", content)
    write_text(folder / "table.txt", text.getvalue())
    consoles[0].print(Text(f"written to {folder}"), soft_wrap=True)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
