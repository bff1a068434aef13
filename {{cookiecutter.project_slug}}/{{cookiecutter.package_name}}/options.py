"""Options of the scripts that are not about a config, and for those that take up a checkpoint, whom they call."""

import math
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UsageError, did_you_mean
from .runs import saved_checkpoint

Options = Mapping[str, tuple[Any, str]]  # by key: the default, whose type is the key's type, and what it is
CHECKPOINT = {"checkpoint": ("", "a run directory, or a checkpoint file")}


def dispatch(script: str, argv: list[str]) -> None:
    """Calls function `script` of `tasks/<family>_<script>.py` with the checkpoint, its config and the OPTIONS there.

    Raises:
        UsageError: no such checkpoint, or one of a family that has no such part, or a wrong option.
    """
    if {"-h", "--help"} & set(argv):
        tables = {
            f"of a checkpoint with task={family}": {**CHECKPOINT, **_part(family, script).OPTIONS}
            for family in _families(script)
        }
        print_options(f"python {script}.py checkpoint=<run or file> [key=value ...]", tables)
        return
    given = dict(argument.partition("=")[::2] for argument in argv)
    checkpoint, config = saved_checkpoint(Path(given.get("checkpoint", "")))
    part = _family_part(config["task"]["name"], script)
    options = read_options(argv, {**CHECKPOINT, **part.OPTIONS})
    del options["checkpoint"]
    try:
        getattr(part, script)(checkpoint, config, **options)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of what is printed, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def read_options(argv: list[str], options: Options) -> dict[str, Any]:
    """The values that `argv` gives. Unlike a config's, text is what was typed, whatever it looks like.

    Raises:
        UsageError: an unknown key, or a value of the wrong type.
    """
    values = {key: default for key, (default, _) in options.items()}
    for argument in argv:
        key, equals, text = argument.partition("=")
        if not equals:
            raise UsageError(f"{argument}: expected key=value; --help lists the keys")
        if key not in options:
            raise UsageError(f"{key}: there is no such key{did_you_mean(key, list(options))}; --help lists them")
        values[key] = _typed(key, text, type(options[key][0]))
    return values


def print_options(usage: str, tables: Mapping[str, Options]) -> None:
    """The keys of a script with their defaults, under the headings of `tables`."""
    print(f"usage: {usage}")
    for heading, options in tables.items():
        shown = {key: f"{key}={_shown(default)}" for key, (default, _) in options.items()}
        print(f"\n{heading}:")
        for key, (_, comment) in options.items():
            print(f"  {shown[key]:{max(map(len, shown.values()))}}  # {comment}")


def _family_part(family: str, script: str) -> ModuleType:
    if family not in _families(script):
        others = ", ".join(f"task={name}" for name in _families(script)) or "none"
        raise UsageError(f"checkpoint=: it is of task={family}, which {script}.py does not know; it knows {others}")
    return _part(family, script)


def _part(family: str, script: str) -> ModuleType:
    return import_module(f".tasks.{family}_{script}", __package__)


def _families(script: str) -> list[str]:
    files = (Path(__file__).parent / "tasks").glob(f"*_{script}.py")
    return sorted(file.stem.removesuffix(f"_{script}") for file in files)


def _shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def _typed(key: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text not in ("true", "false"):
            raise UsageError(f"{key}={text}: expected true or false")
        return text == "true"
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key}={text}: expected a {'whole ' if kind is int else ''}number")
    return value
