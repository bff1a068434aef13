"""Files that are whole or not there."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a file that appears under its name when it is complete."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    write(temporary)
    temporary.replace(path)


def write_json(path: Path, content: Any) -> None:
    replace(path, lambda file: file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


def write_png(path: Path, picture: Tensor) -> None:
    """Writes bytes (C, H, W): grey, or red, green and blue."""
    image = Image.fromarray(picture.movedim(0, -1).squeeze(-1).numpy())
    replace(path, lambda file: image.save(file, "PNG"))
