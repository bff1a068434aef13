"""argv -> one plain, validated config.

A *group* is a folder of `configs/`, an *option* one of its files. `group=option` picks a file, `group.key=value`
overrides a key, `experiment=name` is a file that does both. Later wins: train.yaml < options < task < its with_norm <
experiment < argv. A norm, model, data, trainer or logger file fills the section of its group; a task or an experiment
file speaks about the whole config, so its keys are written from the root. `defaults:` names the options a file picks.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from .errors import UsageError, did_you_mean

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ROOTED = ("task", "experiment")  # groups whose files are written from the root


def groups() -> dict[str, list[str]]:
    """Every group with its options, as the folders of `configs/` have them."""
    folders = sorted(folder for folder in CONFIGS.iterdir() if folder.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def compose(argv: list[str]) -> DictConfig:
    """The config that `argv` asks for, closed to unknown keys. References stay alive: what is found later flows on.

    Raises:
        UsageError: unknown group, option or key, or a value of the wrong type; the message names what would be right.
    """
    picks, overrides = parse(argv)
    base = _load(CONFIGS / "train.yaml")
    experiment = _option("experiment", picks.pop("experiment")) if "experiment" in picks else OmegaConf.create()
    chosen = {**base.defaults, **experiment.get("defaults", {}), **picks}
    task = _option("task", chosen["task"])
    chosen = {**base.defaults, **task.get("defaults", {}), **experiment.get("defaults", {}), **picks}
    options = {group: _option(group, option) for group, option in chosen.items() if group not in ROOTED}

    rooted = [_without(task, "defaults", "with_norm"), task.get("with_norm", {}).get(chosen["norm"]) or {}]
    cfg = OmegaConf.merge(_without(base, "defaults"), options, *rooted, {"defaults": chosen})
    assert isinstance(cfg, DictConfig)
    return _finish(cfg, [*leaves(_without(experiment, "defaults")), *overrides])


def recompose(saved: dict[str, Any], argv: list[str], anew: tuple[str, ...]) -> DictConfig:
    """The config of an earlier run with this command line's overrides on top.

    Only options of the groups `anew` may be picked again (`trainer=ddp` on another machine, say); the rest is what the
    run is.
    """
    picks, overrides = parse(argv)
    layers, choice = [OmegaConf.create(saved)], ", ".join(anew)
    for group, option in picks.items():
        if group not in anew:
            raise UsageError(f"{group}={option}: an earlier run keeps its {group}; what can be picked anew is {choice}")
        layers.append(OmegaConf.create({group: _option(group, option), "defaults": {group: option}}))
    cfg = OmegaConf.merge(*layers)
    assert isinstance(cfg, DictConfig)
    return _finish(cfg, overrides)


def value_of(key: str, argv: list[str]) -> str | None:
    """The text given for `key`, if any; the last one counts."""
    return dict(parse(argv)[1]).get(key)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` as dicts, lists and scalars, which a checkpoint can hold under `weights_only=True`."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


class Text(str):
    """A value as it was typed, not parsed yet."""


def parse(argv: list[str]) -> tuple[dict[str, str], list[tuple[str, Any]]]:
    """`argv` as picked options by group, and overrides as (key, text) in order."""
    picks, overrides = {}, []
    known = groups()
    for argument in argv:
        key, equals, text = argument.partition("=")
        if not equals or not re.fullmatch(r"\w[\w.]*", key):
            raise UsageError(
                f"{argument}: expected group=option or key=value, as in norm=dyt or optim.lr=1e-3; --help lists them"
            )
        if key in known:
            picks[key] = text
        else:
            overrides.append((key, Text(text)))
    return picks, overrides


def _finish(cfg: DictConfig, overrides: list[tuple[str, Any]]) -> DictConfig:
    """Closes `cfg` to new keys, applies `overrides` in order and checks that every reference between keys resolves."""
    asked = cfg.copy()
    for key, value in overrides:
        OmegaConf.update(asked, key, _checked(cfg, key, value), merge=False)
    try:
        plain(asked)
    except OmegaConfBaseException as error:
        raise UsageError(f"config: {str(error).splitlines()[0]}") from error
    OmegaConf.set_struct(asked, True)
    return asked


def _load(path: Path) -> DictConfig:
    try:
        cfg = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(cfg, DictConfig):
        raise UsageError(f"{path}: expected keys and values")
    return cfg


def _option(group: str, option: str) -> DictConfig:
    options = groups().get(group)
    if options is None:
        raise UsageError(f"{group}={option}: there is no group {group}; the groups are {', '.join(groups())}")
    if option in options:
        return _load(CONFIGS / group / f"{option}.yaml")
    if group == "experiment" and option.endswith(".yaml") and Path(option).is_file():
        return _load(Path(option))
    guess = did_you_mean(option, options)
    raise UsageError(f"{group}={option}: there is no such {group}{guess}; choose from {', '.join(options)}")


def _without(cfg: DictConfig, *names: str) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in names])


def leaves(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """Every key that holds no further keys, dotted, with its value as written."""

    def walk(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    return walk(OmegaConf.to_container(cfg, resolve=False), "")  # type: ignore[arg-type]


def _checked(cfg: DictConfig, key: str, value: Any) -> Any:
    """`value` for a key of `cfg`, if it is of that key's type; a mapping that is empty in its file takes any key."""
    text = value
    if isinstance(value, Text):
        value = _yaml(value)
    parent, _, name = key.rpartition(".")
    section = OmegaConf.select(cfg, parent) if parent else cfg
    if isinstance(section, DictConfig) and not section:
        return value
    if not isinstance(section, DictConfig) or name not in section:
        known = [*groups(), *(leaf for leaf, _ in leaves(cfg) if not leaf.startswith("defaults."))]
        raise UsageError(f"{key}: there is no such key{did_you_mean(key, known)}; --help lists them")
    if isinstance(value, str) and "${" in value:
        return value
    return _typed(key, section[name], value, text)


def _yaml(text: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)["value"]  # type: ignore[index, call-overload]
    except YAMLError:
        return text


def _typed(key: str, old: Any, new: Any, text: Any) -> Any:
    """`new` if it is of the type of `old`. A text key takes any scalar as typed, so that `name=007` stays 007."""
    number = not isinstance(new, bool)
    if isinstance(old, bool):
        expected, right = "true or false", isinstance(new, bool)
    elif isinstance(old, int):
        expected, right = "a whole number", isinstance(new, int) and number
    elif isinstance(old, float):
        expected, right = "a number", isinstance(new, (int, float)) and number
    elif isinstance(old, ListConfig):
        expected, right = "a list", isinstance(new, list)
    elif isinstance(old, DictConfig):
        expected, right = "a mapping", isinstance(new, dict)
    else:  # text, or null where text may stand
        scalar = isinstance(text, Text) or not isinstance(new, (list, dict))
        expected, right = "text", old is None if new is None else scalar
        new = None if new is None else str(text)
    if not right:
        raise UsageError(f"{key}={text}: expected {expected}, as in {key}={old}")
    return new
