"""Folders that prepare.py makes: begun with a plan.json, complete with a meta.json.

The plan holds the settings and the state of the source. The same command continues an interrupted preparation; another
one is refused.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from .. import utils
from ..config.errors import UsageError, require, translate_errors
from ..utils import LOCK

META = "meta.json"
PLAN = "plan.json"
AGAIN = "delete the folder and prepare the data again"


def read_meta(folder: str, usage: str, version: int) -> dict[str, Any]:
    """Returns the meta.json of a prepared folder.

    Args:
        usage: arguments of prepare.py that make such a folder.
        version: the format expected.

    Raises:
        UsageError: it is missing, or of another format.
    """
    path, make = Path(folder).expanduser() / META, f"python prepare.py {usage} makes one"
    if not folder or not path.is_file():
        begun = folder and (path.parent / PLAN).exists()
        hint = "prepare.py has not finished it: the same command continues" if begun else make
        raise UsageError(f"root={folder} is no folder with a {META}; {hint}")
    with reading(path):
        meta: dict[str, Any] = json.loads(path.read_bytes())
        if meta["format"] != version:
            raise ValueError(f"expected format {version}, not {meta['format']}; {AGAIN}")
    return meta


def reading(path: Path) -> AbstractContextManager[None]:
    """Turns errors of code that reads the contents of a meta.json into a UsageError that names it."""
    return translate_errors(f"{path} was not written by this prepare.py", KeyError)


def check_made_from(meta: dict[str, Any], out: str, settings: dict[str, Any], source: Any) -> None:
    """Checks that a complete folder is what is asked for.

    Args:
        source: its state now; None if it is not there any more.

    Raises:
        UsageError: other settings, or another state of the source.
    """
    require(meta.get("made_from") == settings, f"out={out} holds data of other settings; take another folder")
    same = source is None or meta.get("source", source) == json.loads(json.dumps(source))
    require(same, f"out={out} was made before the source changed; delete the folder, or take another")


@contextmanager
def begun(folder: Path, out: str, plan: dict[str, Any]) -> Iterator[None]:
    """Locks a folder, new or begun with the same plan. It is removed afterwards if nothing is in it.

    Raises:
        UsageError: it was begun otherwise, holds other files, is locked by another process, or cannot be written.
    """
    require(not folder.exists() or folder.is_dir(), f"out={out} is a file: expected a folder")
    with utils.lock_folder(folder, f"out={out}", "another process prepares it; wait for its end, or end it"):
        try:
            if (folder / PLAN).exists():
                same = json.loads((folder / PLAN).read_bytes()) == json.loads(json.dumps(plan))
                changed = "was begun with other settings, or the source has changed"
                require(same, f"out={out} {changed}; delete it or take another")
            else:
                others = any(file.name != LOCK for file in folder.iterdir())
                require(not others, f"out={out} holds other files; take an empty folder or a new one")
                utils.write_json(folder / PLAN, plan)
            yield
        except OSError as error:
            raise UsageError(f"out={out}: {error.strerror or error}; the same command continues") from error
        finally:
            if not (folder / PLAN).exists():
                with suppress(OSError):  # Windows does not remove open files
                    (folder / LOCK).unlink()
                    folder.rmdir()


def done(folder: Path, names: Sequence[str] = ()) -> None:
    """Removes the plan, and files or folders by name or pattern."""
    for name in (*names, "*.tmp", PLAN):
        for path in folder.glob(name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
