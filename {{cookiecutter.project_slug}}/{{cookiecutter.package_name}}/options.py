"""Options of the scripts that are not about a config, and for those that take up a checkpoint, whom they call."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UsageError, did_you_mean
from .models import NAMES, get_family
from .models.family import Options, Script
from .runs import saved_checkpoint
from .show import shown

CHECKPOINT = {"checkpoint": ("", "a run directory, or a checkpoint file")}


def dispatch(script: str, argv: list[str]) -> None:
    """Calls what the checkpoint's family has for `script`, with the checkpoint, its config and the options of `argv`.

    Raises:
        UsageError: no such checkpoint, or one of a family that has no such script, or a wrong option.
    """
    parts = {name: getattr(get_family(name), script) for name in NAMES}
    parts = {name: part for name, part in parts.items() if part is not None}
    if {"-h", "--help"} & set(argv):
        tables = {f"of a checkpoint with task={name}": {**CHECKPOINT, **part.options} for name, part in parts.items()}
        print_options(f"python {script}.py checkpoint=<run or file> [key=value ...]", tables)
        return
    given = dict(argument.partition("=")[::2] for argument in argv)
    checkpoint, config = saved_checkpoint(Path(given.get("checkpoint", "")))
    family = config["task"]["name"]
    if family not in parts:
        others = ", ".join(f"task={name}" for name in parts) or "none"
        raise UsageError(f"{checkpoint}: it is of task={family}, which {script}.py does not know; it knows {others}")
    options = read_options(argv, {**CHECKPOINT, **parts[family].options})
    del options["checkpoint"]
    parts[family].run(checkpoint, config, **options)


def prepare(script: str, part: Script, argv: list[str], usage: str, heading: str) -> None:
    """Calls `part` with the options of `argv`.

    Args:
        usage: what stands behind the script's name.
        heading: of the options, where they are printed.

    Raises:
        UsageError: a wrong option.
        KeyboardInterrupt: after a word about how to go on.
    """
    if {"-h", "--help"} & set(argv):
        print_options(f"python {script}.py {usage}", {heading: part.options})
        return
    options = read_options(argv, part.options)
    try:
        part.run(**options)
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
