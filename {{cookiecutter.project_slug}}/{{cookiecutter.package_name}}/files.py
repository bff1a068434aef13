"""Files that are whole or not there, and folders that one process at a time works in."""

import json
import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from .errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

LOCK = ".lock"


def hold(folder: Path, typed: str, busy: str) -> AbstractContextManager[Any]:
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


def stamp(file: Path) -> tuple[str, int, int]:
    """Changes with a file, without a look into it: its name, its size, and when it was written."""
    status = file.stat()
    return file.name, status.st_size, status.st_mtime_ns


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


def write_png(path: Path, picture: "Tensor") -> None:
    """Writes bytes (C, H, W): grey, or red, green and blue."""
    from PIL import Image

    image = Image.fromarray(picture.movedim(0, -1).squeeze(-1).numpy())
    replace(path, lambda file: image.save(file, "PNG"))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
