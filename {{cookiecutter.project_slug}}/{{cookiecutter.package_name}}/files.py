"""Files that are whole or not there."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a file that appears under its name when it is complete."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    write(temporary)
    temporary.replace(path)


def write_json(path: Path, content: Any) -> None:
    replace(path, lambda file: file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))
