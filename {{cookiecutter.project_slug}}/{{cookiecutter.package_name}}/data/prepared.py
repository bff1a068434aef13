"""What the scripts that prepare data share: a folder that is begun with a plan and finished by a meta.json.

The plan says what was begun: what was interrupted goes on with it, and nothing else goes into its folder.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .. import utils
from ..errors import UsageError, require
from ..utils import LOCK

META = "meta.json"
PLAN = "plan.json"  # what was begun, until it is finished
AGAIN = "delete the folder and prepare the data again"


def read_meta(given: str, script: str, usage: str, shards: str, version: int) -> dict[str, Any]:
    """The meta.json of a folder that a script has prepared.

    Args:
        given: the folder, as the user wrote it.
        usage: arguments of the script.
        shards: pattern of the script's files, by which an unfinished folder is known.
        version: the format expected.

    Raises:
        UsageError: it is not there, or not of this format.
    """
    make = f"python {script} {usage} makes one"
    require(bool(given), f"data.root is not set: data.root=FOLDER names a folder with {META}; {make}")
    path = Path(given).expanduser() / META
    unfinished = f"; {script} has not finished it: the same command goes on" if any(path.parent.glob(shards)) else ""
    require(path.is_file(), f"data.root={given} has no {META}{unfinished or f'; {make}'}")
    try:
        meta = json.loads(path.read_bytes())
        found = meta["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} was not written by {script}: {error!r}") from error
    require(found == version, f"{path}: expected format {version}, not {found}; {AGAIN}")
    return meta


def check_made_from(meta: dict[str, Any], out: str, settings: dict[str, Any], source: Any) -> None:
    """Whether what is finished is what is asked for; `source` is its state now, None if it cannot be told.

    Raises:
        UsageError: it is not.
    """
    require(meta.get("made_from") == settings, f"out={out} holds data of other settings; take another folder")
    same = source is None or meta.get("source", source) == json.loads(json.dumps(source))
    require(same, f"out={out} was made before the source changed; delete the folder, or take another")


@contextmanager
def begun(folder: Path, out: str, plan: dict[str, Any]) -> Iterator[None]:
    """Keeps a folder, new or begun with the same plan, from other processes; `out` is as the user wrote it.

    Whoever is `done` with it leaves it without the plan; where nothing else is in it either, it goes.

    Raises:
        UsageError: it was begun otherwise, holds something else, another process has it, or it cannot be written.
    """
    require(not folder.exists() or folder.is_dir(), f"out={out} is a file: expected a folder")
    _check_free(folder, out)
    with utils.hold(folder, f"out={out}", "another process prepares it; wait for its end, or end it"):
        try:
            _check_free(folder, out)  # the other may just have ended
            _plan(folder, out, json.loads(json.dumps(plan)))
            yield
        finally:
            if not (folder / PLAN).exists():
                with suppress(OSError):  # Windows lets nobody remove what is open
                    (folder / LOCK).unlink()
                    folder.rmdir()


def _check_free(folder: Path, out: str) -> None:
    others = folder.exists() and not (folder / PLAN).exists() and any(file.name != LOCK for file in folder.iterdir())
    require(not others, f"out={out} holds other files; take an empty folder or a new one")


def _plan(folder: Path, out: str, plan: dict[str, Any]) -> None:
    if (folder / PLAN).exists():
        same = json.loads((folder / PLAN).read_bytes()) == plan
        require(same, f"out={out} was begun with other settings, or the source has changed; delete it or take another")
        return
    try:
        utils.write_json(folder / PLAN, plan)
    except OSError as error:
        raise UsageError(f"out={out} cannot be written: {error.strerror}") from error


def done(folder: Path, patterns: Sequence[str] = ()) -> None:
    """Removes the plan, and the files of these patterns."""
    remove(folder, [*patterns, "*.tmp", PLAN])


def remove(folder: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for file in folder.glob(pattern):
            file.unlink()
