"""Seeds, files that are written atomically, and other small helpers."""

from __future__ import annotations  # torch is imported where it is used: a mistyped key need not wait for it

import hashlib
import json
import math
import operator
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from filelock import FileLock, Timeout

from .config.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

LOCK = ".lock"


def lock_folder(folder: Path, typed: str, busy: str) -> AbstractContextManager[Any]:
    """Makes `folder` if need be, and keeps others from holding it, until this is left or the process has ended.

    Args:
        typed: what the user gave it as.
        busy: what is said where another process has it.

    Raises:
        UsageError: another process has it, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout:
        raise UsageError(f"{typed}: {busy}") from None
    except OSError as error:
        raise UsageError(f"{typed}: nothing can be written there ({error.strerror})") from error


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a file that appears under its name when it is complete."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    replace(path, lambda file: file.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Writes `content`, with null for numbers that JSON has no word for."""
    write_text(path, json.dumps(_finite(content), indent=1) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def mix(*parts: SupportsIndex) -> int:
    """One 32-bit seed out of any integers: the same in every process, unrelated for neighbouring parts."""
    text = ",".join(str(operator.index(part)) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def seed_all(*parts: SupportsIndex) -> None:
    """Seed python, numpy and torch's default CPU generator; cheap enough to call for every sample."""
    import torch

    # numpy and torch run the same Mersenne twister: one seed for both would give both the same numbers.
    random.seed(mix(*parts, 0))
    np.random.seed(mix(*parts, 1))  # noqa: NPY002, libraries draw from this global one
    torch.default_generator.manual_seed(mix(*parts, 2))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode, and each of its modules back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def levels(pixels: Tensor) -> Tensor:
    """Returns pixels in 0..1 as bytes."""
    return (255 * pixels).round().byte()


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_signals(worker: int) -> None:
    """Leaves Ctrl-C, which a terminal sends to workers too, to the main process, so that it gets its next batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
