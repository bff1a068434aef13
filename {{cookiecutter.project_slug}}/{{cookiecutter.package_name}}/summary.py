"""What a run that has ended leaves for other programs."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from .config import plain
from .files import write_json
from .runs import Run


def write_summary(run: Run, cfg: DictConfig, values: dict[str, Any]) -> None:
    """`summary.json`: final metrics by their tags, `diverged` if it has, and what tells the run from another."""
    facts = {"norm": plain(cfg)["norm"], "seed": cfg.seed, "versions": versions(), "git": git_state()}
    write_json(run.path / "summary.json", values | facts)


def versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("torch", "lightning") if name in sys.modules}
    return {"python": platform.python_version()} | libraries


def git_state() -> dict[str, Any] | None:
    """Commit and whether there are changes on top; None outside a repository or without git."""

    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
        return done.stdout.strip()

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "changed": bool(changes)}


def peak_memory_bytes() -> int | None:
    """The most this process has held: on the GPU if it used one, else in main memory; None where it cannot be told."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
