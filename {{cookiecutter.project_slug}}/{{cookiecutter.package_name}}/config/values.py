"""Keys and values of a config: plain values, dotted keys, and the type of what is typed."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from yaml import YAMLError

from .constraints import is_number
from .errors import require

COMPARES = (Path(__file__).resolve().parents[2] / "compare.py").is_file()  # for hints; it can be left out


class Text(str):
    """A value as it was typed, not parsed yet."""


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Returns `cfg` as dicts, lists and scalars, which a checkpoint can hold under `weights_only=True`."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def leaves(cfg: Mapping[str, Any] | DictConfig) -> Iterator[tuple[str, Any]]:
    """Yields every key that holds no further keys, dotted, with its value as written."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            if isinstance(value, Mapping) and value:
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    return walk(OmegaConf.to_container(cfg, resolve=False) if isinstance(cfg, DictConfig) else cfg, "")  # type: ignore[arg-type]


def without(cfg: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Returns the leaves of `cfg` but these, and what is below these."""
    return {key: value for key, value in leaves(cfg) if not any(f"{key}.".startswith(f"{one}.") for one in keys)}


def has_key(cfg: DictConfig, key: str) -> bool:
    """Returns true if `cfg` has this dotted key; a mapping that is empty in its file has any."""
    parent, _, name = key.rpartition(".")
    section = OmegaConf.select(cfg, parent) if parent else cfg
    return isinstance(section, DictConfig) and (name in section or not section)


def to_argv(texts: Mapping[str, str]) -> list[str]:
    return [f"{key}={text}" for key, text in texts.items()]


def parse_yaml(text: str) -> Any:
    """Returns the value that `text` is in YAML, or `text` itself.

    Numbers are decimal, as they look: YAML takes 010 for 8, and 1:30 for 90.
    """
    if re.fullmatch(r"\d+(:\d+)+", text):
        return text
    text = re.sub(r"(?<![\w.+-])([-+]?)0+(?=\d)", r"\1", text)
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)["value"]  # type: ignore[index, call-overload]
    except YAMLError:
        return text


def typed_value(key: str, old: Any, new: Any, text: Any) -> Any:
    """Returns `new` if it has the type of `old`. A text key takes any scalar as typed, so that `name=007` stays 007.

    Raises:
        UsageError: it has another type.
    """
    if isinstance(old, bool):
        expected, right = "true or false", isinstance(new, bool)
    elif isinstance(old, int):
        expected, right = "a whole number", is_number(new) and isinstance(new, int)
    elif isinstance(old, float):
        expected, right = "a number", is_number(new)
    elif isinstance(old, ListConfig):
        expected, right = "a list", isinstance(new, (list, ListConfig))
        if right and old and is_number(old[0]) and not all(is_number(item) for item in new):
            expected, right = "a list of numbers", False
    elif isinstance(old, DictConfig):
        expected, right = "a mapping", isinstance(new, (dict, DictConfig))
    else:  # text, or null where text may stand
        typed = isinstance(text, Text) or not isinstance(new, (list, dict))
        new = "" if old is not None and isinstance(text, Text) and not text else new  # which YAML takes for null
        expected, right = "text", old is None if new is None else typed
        new = None if new is None else str(text)
    several = "; compare.py takes several" if COMPARES and "," in str(text) and not isinstance(old, ListConfig) else ""
    example = str(old).lower() if isinstance(old, bool) else old
    require(right, f"{key}={text}: expected {expected}, as in {key}={example}{several}")
    return new


def by_width(value: float | int, width: int, factors: Mapping[int, float | int]) -> float:
    """Returns `value` times the factor of this width, interpolated between the widths of `factors` in log-log scale.

    Outside of them it is the factor of the nearest width.
    """
    known = sorted(factors)
    width = min(max(width, known[0]), known[-1])
    low, high = max(one for one in known if one <= width), min(one for one in known if one >= width)
    weight = math.log(width / low) / math.log(high / low) if low < high else 0.0
    return value * round(factors[low] ** (1 - weight) * factors[high] ** weight, 6)


OmegaConf.register_resolver("by_width", by_width, replace=True)
