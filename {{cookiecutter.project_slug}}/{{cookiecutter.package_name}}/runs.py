"""Run directories: creation, resume and summary."""

import hashlib
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import Any

from omegaconf import DictConfig

from .config import leaves, load_yaml, plain, without
from .config.errors import Diverged, UsageError, require
from .utils import LOCK, lock_folder, write_json

RUN_DIR = "DYT_RUN_DIR"  # set by rank 0 for the other ranks, which Lightning starts with the same argv

# Keys that may change when a run resumes; the others make it another run.
MACHINE = ("data.batch_size", "data.download", "data.pin_memory", "data.root", "data.workers", "trainer")
RESUMABLE = ("resume", "callbacks", "checkpoint", "compile", "logger", "monitor", *MACHINE)


@dataclass(frozen=True)
class Run:
    """A run directory, and the checkpoint that training resumes from, if any."""

    path: Path
    checkpoint: Path | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"


# --- Checkpoints.


def load_checkpoint(file: Path, device: str = "meta") -> dict[str, Any]:
    """Returns the content of a checkpoint, tensors on `device`.

    Raises:
        UsageError: it is damaged, or no checkpoint of this project.
    """
    import torch  # takes a second to import, which a mistyped key should not cost

    try:
        checkpoint = torch.load(file, weights_only=True, map_location=device)
    except Exception as error:  # of many kinds, by the bytes that are damaged
        raise UsageError(f"{file}: damaged, or no checkpoint") from error
    known = isinstance(checkpoint, dict) and {"config", "global_step", "state_dict"} <= checkpoint.keys()
    require(known and isinstance(checkpoint["config"], dict), f"{file}: no checkpoint that train.py wrote")
    return dict(checkpoint)


def resume_files(run_dir: Path) -> list[Path]:
    """Returns `last.ckpt`, and the checkpoints that Lightning saves when SLURM stops a job; those that there are."""
    last = run_dir / "checkpoints" / "last.ckpt"
    return [*([last] if last.exists() else []), *run_dir.glob("hpc_ckpt_*.ckpt")]


def last_checkpoint(run_dir: Path, report: bool = False) -> Path | None:
    """Returns the latest checkpoint that training can resume from, or `best.ckpt` if all others are damaged.

    Args:
        report: prints which is damaged.

    Raises:
        UsageError: all are damaged.
    """
    steps: dict[Path, int] = {}
    damaged = []
    for file in resume_files(run_dir):
        try:
            steps[file] = load_checkpoint(file)["global_step"]
        except UsageError as error:
            damaged.append(error)
    best = run_dir / "checkpoints" / "best.ckpt"
    if damaged and not steps:
        if not best.exists():
            raise damaged[0]
        steps[best] = load_checkpoint(best)["global_step"]
    if damaged and report:
        print(f"warning: {damaged[0]}; the run resumes from step {max(steps.values())}", flush=True)
    return max(steps, key=lambda file: steps[file], default=None)


def best_checkpoint(run_dir: Path) -> Path | None:
    """Returns `best.ckpt`, or `last.ckpt` of a run that validated nothing."""
    files = [run_dir / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    return next((file for file in files if file.exists()), None)


def saved_checkpoint(path: Path, key: str = "checkpoint") -> tuple[Path, dict[str, Any]]:
    """Returns a checkpoint file, or the best one of a run directory (the last where none is best), and its config.

    Raises:
        UsageError: there is none, or the file is not a checkpoint of this project.
    """
    require(bool(str(path).strip(".")), f"{key}=: name a run directory or a checkpoint file, as in {key}=runs/<run>")
    file = (best_checkpoint(path) or path) if path.is_dir() else path
    folder = path if path.is_dir() else path.parent
    require(file.is_file(), f"{key}={path}: there is no checkpoint{_existing(folder)}")
    return file, dict(load_checkpoint(file)["config"])


def evaluable(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the keys that may change when a run is evaluated: of the task, only its sections."""
    sections = [f"task.{key}" for key, value in config.get("task", {}).items() if isinstance(value, Mapping)]
    return ("compile", "data", "task.monitor", *sections, "trainer")


def resumed_run(path: Path) -> tuple[Path, dict[str, Any]]:
    """Returns the directory of a run that can resume, and its config.

    Args:
        path: a run directory, or a file in its `checkpoints/`.

    Raises:
        UsageError: there is no such run, it has saved no checkpoint yet, or its files are damaged or another run's.
    """
    run_dir = path.parents[1] if path.is_file() and path.parent.name == "checkpoints" else path
    config_file = run_dir / "config.yaml"
    require(config_file.is_file(), f"resume={path}: there is no run there (no config.yaml){_existing(run_dir.parent)}")
    last, best = last_checkpoint(run_dir), best_checkpoint(run_dir)
    if last is None:
        hint = "start it anew" if best is None else f"init={quote(str(best))} starts a new one from its best"
        raise UsageError(f"resume={path}: that run has no checkpoint to resume from; {hint}")
    saved = load_checkpoint(last)
    if best is not None:  # the test needs it, which should not be found out after training
        known = _data_facts(load_checkpoint(best)) == _data_facts(saved)
        require(known, f"{last}: holds another run than {best}, with other data; name=<name> starts a new one")
    config = dict(saved["config"])
    _check_same_run(last, config, dict(leaves(load_yaml(config_file))))
    return run_dir, config


# --- Run directories.


@contextmanager
def open_run(cfg: DictConfig, max_steps: int) -> Iterator[Run]:
    """Makes or resumes a run directory, the same one for all ranks and restarts of a job.

    If the run fails before its first checkpoint, a directory that was made here is removed; that of a run which
    diverged is kept for its curves.

    Raises:
        UsageError: the directory cannot be made, is taken, or its run cannot resume with this config.
    """
    by_lightning, job, made = RUN_DIR in os.environ, _launch_id(), False
    if by_lightning:  # in a rank that rank 0 has started
        path, resumes = Path(os.environ[RUN_DIR]), bool(cfg.resume)
    elif cfg.resume:
        path, resumes = Path(cfg.resume), True
    elif job is not None:
        path = Path(cfg.runs) / (cfg.name or f"{cfg.task.name}-{cfg.norm.name}-{job}-{_digest(cfg)}")
        path.mkdir(parents=True, exist_ok=True)  # by the first of many processes; after a restart it is there
        resumes = True
    else:
        path, resumes, made = _make(cfg), False, True
    try:
        with nullcontext() if by_lightning or job is not None else lock_run(path):
            for left in (path / "checkpoints").glob("*.tmp"):  # by a save that was killed
                left.unlink(missing_ok=True)
            run = Run(path, last_checkpoint(path, report=not by_lightning) if resumes else None)
            if run.checkpoint is not None:
                _check_resumes(run, cfg, max_steps)
            os.environ[RUN_DIR] = str(path.resolve())
            try:
                yield run
            finally:
                if not by_lightning:
                    del os.environ[RUN_DIR]
    except Diverged:
        raise
    except BaseException:
        if made and not (path / "checkpoints").exists():
            shutil.rmtree(path, ignore_errors=True)  # the error at hand counts, not a file that Windows keeps open
        raise


def lock_run(path: Path) -> AbstractContextManager[Any]:
    """Keeps other processes from training this run. Raises UsageError: one does."""
    return lock_folder(path, str(path), "another process trains this run; wait for its end, or end it")


def make_numbered(root: Path, stem: str, key: str) -> Path:
    """Makes `<root>/<stem>-<n>`, with the first n that is free.

    Args:
        key: of `root` on the command line.

    Raises:
        UsageError: no directory can be made there.
    """
    return next(path for n in itertools.count(1) if _made(path := root / f"{stem}-{n}", key))


def _make(cfg: DictConfig) -> Path:
    if cfg.name is None:
        return make_numbered(Path(cfg.runs), f"{cfg.task.name}-{cfg.norm.name}", "runs")
    path = Path(cfg.runs) / cfg.name
    if not _made(path, "runs"):
        raise UsageError(f"name={cfg.name}: {path} exists; {_how_to_continue(path)}, or choose another")
    return path


def _how_to_continue(path: Path) -> str:
    """Returns how to continue with an existing run. Raises UsageError if another process trains it."""
    with lock_run(path) if (path / LOCK).exists() else nullcontext():
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


def _launch_id() -> str | None:
    """Returns the job's identity if torchrun or SLURM started every rank; None if one process starts the others."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return os.environ["TORCHELASTIC_RUN_ID"]
    if "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return os.environ.get("SLURM_JOB_ID")
    return None


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a config that identifies a run: all but the keys that may change on resume."""
    return without(config, ("defaults", "name", "runs", *RESUMABLE))


def _digest(cfg: DictConfig) -> str:
    return hashlib.sha256(json.dumps(_identity(plain(cfg)), sort_keys=True).encode()).hexdigest()[:4]


def _data_facts(checkpoint: Mapping[str, Any]) -> list[Any]:
    """Returns what a checkpoint says about the data: number of samples and names of classes."""
    return [state for state in checkpoint.values() if isinstance(state, Mapping) and "sizes" in state]


def _check_same_run(place: Path, config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses a config that is not that of the same run."""
    one, other = _identity(config), _identity(expected)
    for key, value in other.items():
        if one.get(key) != value:
            raise UsageError(
                f"{place}: holds another run ({key}={one.get(key)}, not {value}); name=<name> starts a new one"
            )


def _check_resumes(run: Run, cfg: DictConfig, max_steps: int) -> None:
    """Refuses to resume another run, one that has nothing left to do, or one that FSDP cannot take over."""
    assert run.checkpoint is not None
    checkpoint = load_checkpoint(run.checkpoint)
    _check_same_run(run.path, checkpoint["config"], plain(cfg))
    sharded = checkpoint["config"]["trainer"]["strategy"] == "fsdp"
    if cfg.trainer.strategy == "fsdp" and not sharded:  # its optimiser numbers the parameters differently
        raise UsageError(f"{run.path}: trainer=fsdp resumes its own runs only; take trainer=ddp")
    step, tested = checkpoint["global_step"], (run.path / "summary.json").exists()
    if tested and max_steps <= step:  # one that was interrupted in its test resumes with that
        raise UsageError(
            f"{run.path}: that run is finished after {step} steps; a higher trainer.max_epochs or"
            " trainer.max_steps prolongs it, evaluate.py measures it"
        )


def _existing(folder: Path) -> str:
    """Returns a hint that lists the latest runs of a folder."""
    configs = sorted(folder.glob("*/config.yaml"), key=lambda file: (file.stat().st_mtime_ns, file), reverse=True)
    more = f" and {len(configs) - 5} more" if len(configs) > 5 else ""
    return f"; there is {', '.join(str(file.parent) for file in configs[:5])}{more}" if configs else ""


# --- The summary.


def write_summary(run: Run, cfg: DictConfig, values: dict[str, Any]) -> None:
    """Writes `summary.json`: final metrics by their tags, `diverged` if it has, and facts that identify the run."""
    facts = {"norm": plain(cfg)["norm"], "seed": cfg.seed, "versions": versions(), "git": git_state()}
    write_json(run.path / "summary.json", values | facts)


def versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("torch", "lightning") if name in sys.modules}
    return {"python": platform.python_version()} | libraries


def git_state() -> dict[str, Any] | None:
    """Returns the commit, and whether there are changes on top; None outside a repository or without git."""

    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
        return done.stdout.strip()

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "changed": bool(changes)}


def peak_memory_bytes() -> int | None:
    """Returns the most memory that this process has held, of the GPU if it used one; None where nothing tells it."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
