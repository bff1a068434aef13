"""Run directories: creation, resume and summary."""

import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from shlex import quote
from typing import Any

from omegaconf import DictConfig

from .config import plain, without
from .config.errors import Diverged, UsageError, require
from .utils import LOCK, hold, write_json

RUN_DIR = "DYT_RUN_DIR"  # tells the other ranks, which Lightning starts with the same argv, what rank 0 decided

# What may change when a run goes on; the rest is what it is.
MACHINE = ("data.batch_size", "data.download", "data.pin_memory", "data.root", "data.workers", "trainer")
RESUMABLE = ("resume", "compile", "logger", "monitor", "save_every_n_steps", *MACHINE)


@dataclass(frozen=True)
class Run:
    """A run directory; `checkpoint` is where training goes on from, if it does."""

    path: Path
    checkpoint: Path | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"


def resume_files(run_dir: Path) -> list[Path]:
    """`last.ckpt`, or the one that a sharded save has put aside (`parallel.py`), and what Lightning saves before SLURM
    stops a job, where they are."""
    last = run_dir / "checkpoints" / "last.ckpt"
    aside = last.with_name("last.ckpt.old")  # half of it where there is a new one: it is being removed then
    file = last if last.exists() else aside
    return [*([file] if file.exists() else []), *run_dir.glob("hpc_ckpt_*.ckpt")]


def last_checkpoint(run_dir: Path) -> Path | None:
    """The latest by steps of those that training goes on from."""
    return max(resume_files(run_dir), key=lambda file: load_checkpoint(file)["global_step"], default=None)


def evaluable(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the keys that may change when a run is evaluated: of the task, only its sections."""
    sections = [f"task.{key}" for key, value in config.get("task", {}).items() if isinstance(value, Mapping)]
    return ("compile", "data", "task.monitor", *sections, "trainer")


def load_checkpoint(file: Path, device: str = "meta") -> dict[str, Any]:
    """Returns the content of a checkpoint, tensors on `device`; of shards all but the optimiser's state.

    Raises:
        UsageError: it is damaged, or none of this project's checkpoints.
    """
    import torch  # takes a second to import, which a mistyped key should not cost

    try:
        if file.is_dir():
            from .distributed import read_shards

            checkpoint = read_shards(file, device)
        else:
            checkpoint = torch.load(file, weights_only=True, map_location=device)
    except (
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        OSError,
        RuntimeError,
        UnpicklingError,
        ValueError,
    ) as error:
        raise UsageError(f"{file}: damaged, or no checkpoint") from error
    if not isinstance(checkpoint, dict) or not {"config", "global_step", "state_dict"} <= checkpoint.keys():
        raise UsageError(f"{file}: no checkpoint that train.py wrote")
    return checkpoint


def saved_config(run_dir: Path) -> dict[str, Any]:
    """The config of an earlier run that can be resumed.

    Raises:
        UsageError: there is no such run, it has saved no checkpoint yet, or its files are damaged.
    """
    if not (run_dir / "config.yaml").is_file():
        raise UsageError(f"resume={run_dir}: there is no run there (no config.yaml){_existing(run_dir.parent)}")
    last = last_checkpoint(run_dir)
    if last is None:
        best = best_checkpoint(run_dir)
        anew = "start it anew" if best is None else f"init={quote(str(best))} starts a new one from its best"
        raise UsageError(f"resume={run_dir}: that run has no checkpoint to go on from; {anew}")
    return dict(load_checkpoint(last)["config"])


def saved_checkpoint(path: Path, key: str = "checkpoint") -> tuple[Path, dict[str, Any]]:
    """A checkpoint file, or the best one of a run directory (the last where none is best), and its config.

    Raises:
        UsageError: there is none, or the file is not a checkpoint of this project.
    """
    if not str(path).strip("."):
        raise UsageError(f"{key}=: name a run directory or a checkpoint file, as in {key}=runs/<run>")
    file = (best_checkpoint(path) or path) if path.is_dir() else path
    if not (file.is_file() or (file / "meta.pt").is_file()):
        folder = path if path.is_dir() else path.parent
        raise UsageError(f"{key}={path}: there is no checkpoint{_existing(folder)}")
    return file, dict(load_checkpoint(file)["config"])


def best_checkpoint(run_dir: Path) -> Path | None:
    """`best.ckpt`, or `last.ckpt` of a run that validated nothing."""
    files = [run_dir / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    return next((file for file in files if file.exists()), None)


@contextmanager
def open_run(cfg: DictConfig, max_steps: int) -> Iterator[Run]:
    """The directory of this run, made unless it is resumed; the same for all of its ranks and restarts.

    If the run fails before its first checkpoint, a directory that was made here goes again; if it has diverged, its
    curves are what it was made for.
    """
    stem = f"{cfg.task.name}-{cfg.norm.name}"
    made = False
    alone = RUN_DIR not in os.environ and _launched_as() is None  # else who starts the ranks starts them once
    if RUN_DIR in os.environ:  # a rank that Lightning started
        path = Path(os.environ[RUN_DIR])
        goes_on = bool(cfg.resume)
    elif cfg.resume:
        path = Path(cfg.resume)
        goes_on = True
    elif (job := _launched_as()) is not None:
        path = Path(cfg.runs) / (cfg.name or f"{stem}-{job}-{_digest(cfg)}")
        path.mkdir(parents=True, exist_ok=True)  # by the first of many processes; after a restart it is there
        goes_on = True
    else:
        path = _make(Path(cfg.runs), cfg.name, stem)
        made, goes_on = True, False
    try:
        with hold_run(path) if alone else nullcontext():
            run = Run(path, last_checkpoint(path) if goes_on else None)
            if run.checkpoint is not None:
                _check_goes_on(run, cfg, max_steps)
            with _told_to_ranks(path):
                yield run
    except Diverged:
        raise
    except BaseException:
        if made and not (path / "checkpoints").exists():
            shutil.rmtree(path, ignore_errors=True)  # the error at hand counts, not what Windows keeps open
        raise


def hold_run(path: Path) -> AbstractContextManager[Any]:
    """Keeps other processes from training this run. Raises UsageError: one does."""
    return hold(path, str(path), "another process trains this run; wait for its end, or end it")


@contextmanager
def _told_to_ranks(path: Path) -> Iterator[None]:
    before = os.environ.get(RUN_DIR)
    os.environ[RUN_DIR] = str(path.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[RUN_DIR]


def make_numbered(root: Path, stem: str, key: str) -> Path:
    """Makes `<root>/<stem>-<n>`, with the first n that is free.

    Args:
        key: as which `root` was typed.

    Raises:
        UsageError: no directory can be made there.
    """
    return next(path for n in itertools.count(1) if _made(path := root / f"{stem}-{n}", key))


def _make(root: Path, name: str | None, stem: str) -> Path:
    if name is None:
        return make_numbered(root, stem, "runs")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(
            f"name={name}: expected letters, digits, '-', '_' and '.', no spaces, as in name=my-run; runs= says where"
        )
    path = root / name
    if not _made(path, "runs"):
        raise UsageError(f"name={name}: {path} exists; {_way_on(path)}, or choose another")
    return path


def _way_on(path: Path) -> str:
    """Returns how to continue with an existing run. Raises UsageError if another process trains it."""
    with hold_run(path) if (path / LOCK).exists() else nullcontext():
        if resume_files(path):
            return f"resume={quote(str(path))} continues it"
        best = best_checkpoint(path)
        return f"init={quote(str(best))} starts from its best" if best else "it has no checkpoint: delete it"


def _made(path: Path, key: str) -> bool:
    """Creates a directory; returns False if it exists."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        require(path.parent.is_dir(), f"{key}={path.parent}: expected a directory, this is a file")
        return False
    except OSError as error:
        raise UsageError(f"{key}={path.parent}: no directory can be made there ({error.strerror})") from error
    return True


def _launched_as() -> str | None:
    """The job's identity if torchrun or SLURM started every rank; None if one process starts the others."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return os.environ["TORCHELASTIC_RUN_ID"]
    if "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return os.environ.get("SLURM_JOB_ID")
    return None


def _identity(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a config that identifies a run: all but the keys that may change on resume."""
    return without(cfg, ("defaults", "name", "runs", *RESUMABLE))


def _digest(cfg: DictConfig) -> str:
    return hashlib.sha256(json.dumps(_identity(plain(cfg)), sort_keys=True).encode()).hexdigest()[:4]


def _check_goes_on(run: Run, cfg: DictConfig, max_steps: int) -> None:
    """Refuses to go on with another run's checkpoint, or with one that has nothing left to do."""
    assert run.checkpoint is not None
    checkpoint = load_checkpoint(run.checkpoint)
    goes = run.checkpoint.is_file() or cfg.trainer.strategy == "fsdp"
    require(goes, f"{run.path}: its checkpoint is in shards, which trainer=fsdp goes on from, on any number of devices")
    one, other = _identity(checkpoint["config"]), _identity(plain(cfg))
    if different := [key for key in other if one.get(key) != other[key]]:
        key = different[0]
        raise UsageError(
            f"{run.path}: holds another run ({key}={one.get(key)}, not {other[key]}); name=<name> starts a new one"
        )
    tested = (run.path / "summary.json").exists()  # one that was interrupted in its test goes on with that
    if tested and max_steps <= checkpoint["global_step"]:
        raise UsageError(
            f"{run.path}: that run is finished after {checkpoint['global_step']} steps; a higher trainer.max_epochs or"
            " trainer.max_steps goes on, evaluate.py measures it"
        )


def _existing(folder: Path) -> str:
    """Returns a hint that lists the latest runs of a folder."""
    configs = sorted(folder.glob("*/config.yaml"), key=lambda file: (file.stat().st_mtime_ns, file), reverse=True)
    more = f" and {len(configs) - 5} more" if len(configs) > 5 else ""
    return f"; there is {', '.join(str(file.parent) for file in configs[:5])}{more}" if configs else ""


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
