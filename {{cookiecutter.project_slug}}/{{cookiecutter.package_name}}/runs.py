"""Run directories: where one is made, how one is taken up again, and what it says when it has finished."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from .config import plain
from .errors import UsageError

RUN_DIR = "DYT_RUN_DIR"  # tells the other ranks, which Lightning starts with the same argv, what rank 0 decided


@dataclass(frozen=True)
class Run:
    """A run directory; `checkpoint` is where training goes on from, if it does."""

    path: Path
    checkpoint: Path | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def save_config(self, cfg: DictConfig) -> None:
        (self.path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True), encoding="utf-8")



def last_checkpoint(run_dir: Path) -> Path | None:
    path = run_dir / "checkpoints" / "last.ckpt"
    return path if path.exists() else None


def saved_config(run_dir: Path) -> dict[str, Any]:
    """The config of an earlier run that can be resumed.

    Raises:
        UsageError: there is no such run, or it has saved no checkpoint yet.
    """
    if not (run_dir / "config.yaml").is_file():
        raise UsageError(f"resume={run_dir}: there is no run there (no config.yaml){_existing(run_dir.parent)}")
    if last_checkpoint(run_dir) is None:
        raise UsageError(f"resume={run_dir}: that run has saved no checkpoint yet; start it anew")
    return OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"))  # type: ignore[return-value]


def saved_checkpoint(path: Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint file, or the best one of a run directory, and the config it was made with.

    Raises:
        UsageError: there is none, or the file is not a checkpoint of this project.
    """
    if not str(path).strip("."):
        raise UsageError("checkpoint=: name a run directory or a checkpoint file, as in checkpoint=runs/vit-dyt-1")
    file = path / "checkpoints" / "best.ckpt" if path.is_dir() else path
    if not file.is_file():
        folder = path if path.is_dir() else path.parent
        raise UsageError(f"checkpoint={path}: there is no checkpoint{_existing(folder)}")
    try:
        return file, torch.load(file, weights_only=True, map_location="meta")["config"]
    except (KeyError, TypeError, RuntimeError, UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"checkpoint={file}: no checkpoint that train.py wrote: {reason}") from error


@contextmanager
def open_run(cfg: DictConfig) -> Iterator[Run]:
    """The directory of this run, made unless it is resumed; the same for all of its ranks and restarts.

    If the run fails before its first checkpoint, a directory that was made here goes again.
    """
    stem = f"{cfg.task.name}-{cfg.norm.name}"
    made = False
    if RUN_DIR in os.environ:  # a rank that Lightning started
        path = Path(os.environ[RUN_DIR])
        goes_on = bool(cfg.resume)
    elif cfg.resume:
        path = Path(cfg.resume)
        goes_on = True
    elif (job := _launched_as()) is not None:
        path = Path(cfg.runs) / (cfg.name or f"{stem}-{job}")
        path.mkdir(parents=True, exist_ok=True)  # by the first of many processes; after a restart it is there
        goes_on = True
    else:
        path = _make(Path(cfg.runs), cfg.name, stem)
        made, goes_on = True, False
    run = Run(path, last_checkpoint(path) if goes_on else None)
    before = os.environ.get(RUN_DIR)
    os.environ[RUN_DIR] = str(path.resolve())
    try:
        yield run
    except BaseException:
        if made and not run.checkpoints.exists():
            shutil.rmtree(path)
        raise
    finally:
        if before is None:
            del os.environ[RUN_DIR]


def _make(root: Path, name: str | None, stem: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = root / (name or f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            if name:
                raise UsageError(f"name={name}: {path} exists; resume={path} continues it, or choose another") from None
            number += 1
        else:
            return path


def _launched_as() -> str | None:
    """The job's identity if torchrun or SLURM started every rank; None if one process starts the others."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return os.environ["TORCHELASTIC_RUN_ID"]
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        return os.environ["SLURM_JOB_ID"]
    return None


def _existing(folder: Path) -> str:
    runs = sorted(path.parent for path in folder.glob("*/config.yaml"))
    return f"; there is {', '.join(map(str, runs[-5:]))}" if runs else ""


def write_summary(run: Run, cfg: DictConfig, values: dict[str, Any]) -> None:
    """`summary.json`: final metrics by their tags, and what one needs to tell the run from another."""
    facts = {"norm": plain(cfg)["norm"], "seed": cfg.seed, "versions": _versions(), "git": _git()}
    (run.path / "summary.json").write_text(json.dumps(values | facts, indent=2) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("torch", "lightning") if name in sys.modules}
    return {"python": platform.python_version()} | libraries


def _git() -> dict[str, Any] | None:
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
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
