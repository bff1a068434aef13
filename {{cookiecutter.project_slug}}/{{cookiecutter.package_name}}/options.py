"""Options of the scripts that are not about a config, and for those that take up a checkpoint, whom they call."""

import math
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UsageError, did_you_mean
from .runs import saved_checkpoint
from .show import shown

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
    part = _family_part(checkpoint, config["task"]["name"], script)
    options = read_options(argv, {**CHECKPOINT, **part.OPTIONS})
    del options["checkpoint"]
    getattr(part, script)(checkpoint, config, **options)


def prepare(script: str, argv: list[str], usage: str, heading: str) -> None:
    """Calls function `script` of the one `data/<module>_<script>.py` with the OPTIONS there.

    Args:
        usage: what stands behind the script's name.
        heading: of the options, where they are printed.

    Raises:
        UsageError: a wrong option.
        KeyboardInterrupt: after a word about how to go on.
    """
    (module,) = _modules("data", script)
    part = import_module(f".data.{module}", __package__)
    if {"-h", "--help"} & set(argv):
        print_options(f"python {script}.py {usage}", {heading: part.OPTIONS})
        return
    options = read_options(argv, part.OPTIONS)
    try:
        getattr(part, script)(**options)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with what is missing", file=sys.stderr)
        raise


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
        keys = {key: f"{key}={shown(default)}" for key, (default, _) in options.items()}
        print(f"\n{heading}:")
        for key, (_, comment) in options.items():
            print(f"  {keys[key]:{max(map(len, keys.values()))}}  # {comment}")


def _family_part(checkpoint: Path, family: str, script: str) -> ModuleType:
    if family not in _families(script):
        others = ", ".join(f"task={name}" for name in _families(script)) or "none"
        raise UsageError(f"{checkpoint}: it is of task={family}, which {script}.py does not know; it knows {others}")
    return _part(family, script)


def _part(family: str, script: str) -> ModuleType:
    return import_module(f".tasks.{family}_{script}", __package__)


def _families(script: str) -> list[str]:
    return [module.removesuffix(f"_{script}") for module in _modules("tasks", script)]


def _modules(room: str, script: str) -> list[str]:
    return sorted(file.stem for file in (Path(__file__).parent / room).glob(f"*_{script}.py"))


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
