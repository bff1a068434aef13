"""Where a benchmark leaves its results, and what has to be known to compare them with others."""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..cpus import cpu_count
from ..errors import UsageError, require
from ..files import replace, write_json
from ..summary import git_state, versions
from .rivals import RIVALS

NARROWEST = 120  # characters, of what is no terminal


def make_folder(out: str, stem: str) -> Path:
    """`<out>/<stem>-<n>`, with the first n that is free.

    Raises:
        UsageError: there can be no such folder.
    """
    number = 1
    require(Path(out).is_dir() or not Path(out).exists(), f"out={out}: expected a folder, this is a file")
    while True:
        path = Path(out) / f"{stem}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UsageError(f"out={out}: no folder can be made there ({error.strerror})") from error
        else:
            return path


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


def reason(error: Exception) -> str:
    """Its first line, for what is skipped."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


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
    replace(folder / "table.txt", lambda file: file.write_text(text.getvalue(), encoding="utf-8"))
    consoles[0].print(Text(f"written to {folder}"), soft_wrap=True)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
