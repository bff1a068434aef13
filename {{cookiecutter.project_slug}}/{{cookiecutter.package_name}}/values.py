"""Values for the keys of a config, of the types that its files give them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from yaml import YAMLError

from .errors import UsageError, did_you_mean


class Text(str):
    """A value as it was typed, not parsed yet."""


def leaves(cfg: Mapping[str, Any] | DictConfig) -> Iterator[tuple[str, Any]]:
    """Every key that holds no further keys, dotted, with its value as written."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            if isinstance(value, Mapping) and value:
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    return walk(OmegaConf.to_container(cfg, resolve=False) if isinstance(cfg, DictConfig) else cfg, "")  # type: ignore[arg-type]


def without(cfg: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The leaves of `cfg` but these, and what is below these."""
    return {key: value for key, value in leaves(cfg) if not any(f"{key}.".startswith(f"{one}.") for one in keys)}


def has_key(cfg: DictConfig, key: str) -> bool:
    """Whether `cfg` has this dotted key; a mapping that is empty in its file has any."""
    parent, _, name = key.rpartition(".")
    section = OmegaConf.select(cfg, parent) if parent else cfg
    return isinstance(section, DictConfig) and (name in section or not section)


def checked_values(cfg: DictConfig, key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """`key` with its value, if that is of the key's type; for a mapping, its keys with theirs.

    Raises:
        UsageError: no such key, another type, or a key that follows another choice.
    """
    text = value
    if isinstance(value, Text):
        value = _yaml(value)
    if not has_key(cfg, key):
        known = [name for name, _ in leaves(cfg) if not name.startswith("defaults.")] + list(cfg.defaults)
        raise UsageError(f"{key}: there is no such key{did_you_mean(key, known)}; --help lists them")
    _refuse_followers(cfg, key)
    parent, _, name = key.rpartition(".")
    section = OmegaConf.select(cfg, parent) if parent else cfg
    if name not in section or (isinstance(value, str) and "${" in value):
        yield key, value
    elif isinstance(section[name], DictConfig) and section[name] and isinstance(value, dict):
        for inner, one in value.items():
            yield from checked_values(cfg, f"{key}.{inner}", one)
    else:
        yield key, _typed(key, section[name], value, text)


def check_reference(cfg: DictConfig, asked: DictConfig, key: str) -> None:
    """Refuses a reference (`key=${other}`) to a value of another type than `key` has in `cfg`."""
    parent, _, name = key.rpartition(".")
    section = OmegaConf.select(asked, parent) if parent else asked
    if OmegaConf.is_interpolation(section, name):
        _typed(key, OmegaConf.select(cfg, key), section[name], section[name])


def _refuse_followers(cfg: DictConfig, key: str) -> None:
    """Some keys are not set by themselves: those that name a file's contents, and those the data decide."""
    group, _, name = key.partition(".")
    if group == "defaults":
        raise UsageError(f"{key}: pick an option by {name or 'group'}=<option>")
    if group in cfg.defaults and ((name == "name" and group != "model") or name == "module"):
        raise UsageError(f"{key}: it belongs to the file; pick another by {group}=<option>")
    parent, _, last = key.rpartition(".")
    section = OmegaConf.select(cfg, parent) if parent else cfg
    written = OmegaConf.to_container(section, resolve=False).get(last)  # type: ignore[union-attr]
    if isinstance(written, str) and written.startswith("${data."):
        raise UsageError(f"{key}: the data decide it; set {written.strip('${}')}")


def _yaml(text: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)["value"]  # type: ignore[index, call-overload]
    except YAMLError:
        return text


def _typed(key: str, old: Any, new: Any, text: Any) -> Any:
    """`new` if it is of the type of `old`. A text key takes any scalar as typed, so that `name=007` stays 007."""
    if isinstance(old, bool):
        expected, right = "true or false", isinstance(new, bool)
    elif isinstance(old, int):
        expected, right = "a whole number", _is_number(new) and isinstance(new, int)
    elif isinstance(old, float):
        expected, right = "a number", _is_number(new)
    elif isinstance(old, ListConfig):
        expected, right = "a list", isinstance(new, (list, ListConfig))
        if right and old and _is_number(old[0]) and not all(_is_number(item) for item in new):
            expected, right = "a list of numbers", False
    elif isinstance(old, DictConfig):
        expected, right = "a mapping", isinstance(new, (dict, DictConfig))
    else:  # text, or null where text may stand
        typed = isinstance(text, Text) or not isinstance(new, (list, dict))
        new = "" if old is not None and isinstance(text, Text) and not text else new  # which YAML takes for null
        expected, right = "text", old is None if new is None else typed
        new = None if new is None else str(text)
    if not right:
        raise UsageError(f"{key}={text}: expected {expected}, as in {key}={old}")
    return new


def _is_number(value: Any) -> bool:
    """A finite one; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
