"""Composes one plain, checked config from the command line.

A *group* is a folder of `configs/`, an *option* one of its files. `group=option` picks a file, `group.key=value`
overrides a key, `experiment=name` is a file that does both. Later wins: train.yaml < options < task < its with_<group>
< experiment < debug < command line.

A norm, model, data, trainer, callbacks or logger file fills the section of its group; `callbacks=[one,two]` merges
several, `callbacks=my.yaml` takes a file from anywhere, and so with logger. A task, experiment or debug file is written
from the root of the config. Its `defaults:` name the options that it picks; those of a task may be of groups of its
own. `with_norm: {dyt: {...}}` in such a file lists keys that change only when norm=dyt is chosen. `with_<group>` works
for every group; `with_norm` is applied last. The type of a key is that of its value in the files; `CONSTRAINTS` has the
ranges and choices. Section `trainer` takes more arguments of Lightning's Trainer (`names.py`), sections `callbacks` and
`logger` any entry with `class_path` and `init_args`.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from .constraints import check_constraints
from .errors import UsageError, did_you_mean, require
from .names import ALIASES, HINTS, PASSED, REPLACED
from .values import COMPARES, Text, has_key, leaves, parse_yaml, plain, to_argv, typed_value, without

__all__ = [
    "CONFIGS",
    "ROOTED",
    "SHORT",
    "compose",
    "family_of",
    "groups",
    "has_key",
    "leaves",
    "load_yaml",
    "parse",
    "parse_yaml",
    "plain",
    "recompose",
    "to_argv",
    "typed_value",
    "value_of",
    "without",
]

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ROOTED = ("task", "experiment", "debug")  # groups whose files are written from the root
SHORT = {"init": "init.weights"}  # keys that may be typed shorter


def groups() -> dict[str, list[str]]:
    """Returns every group with its options, as the folders of `configs/` have them."""
    folders = sorted(folder for folder in CONFIGS.iterdir() if folder.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}


def compose(argv: list[str], check: bool = True) -> DictConfig:
    """Returns the config that `argv` asks for, closed to unknown keys. References stay alive: later values flow on.

    Args:
        check: by `CONSTRAINTS`; types and names of keys are checked always.

    Raises:
        UsageError: unknown group, option or key, or a wrong value; the message names what would be right.
    """
    picks, overrides = parse(argv)
    files = [(group, name, _option(group, name)) for group in ("experiment", "debug") if (name := picks.pop(group, ""))]
    defaults = {key: option for _, _, file in files for key, option in file.get("defaults", {}).items()}
    cfg = _layers({**defaults, **picks})
    known = {str(group): groups()[str(group)] for group in cfg.defaults if group not in ROOTED}
    own: list[tuple[str, Any]] = []
    for group, name, file in files:
        changes = _with_sections(CONFIGS / group / f"{name}.yaml", file, known)
        own += leaves(_without(file, "defaults", *(f"with_{one}" for one in changes)))
        for one, options in changes.items():
            own += leaves(options.get(cfg.defaults[one]) or {})
    return _override(cfg, [*own, *overrides], check)


def recompose(saved: Mapping[str, Any], argv: list[str], anew: tuple[str, ...], free: tuple[str, ...]) -> DictConfig:
    """Returns the config of an earlier run with overrides on top. Keys that the run lacks are as they are today.

    Args:
        saved: the run's config.
        anew: groups whose options may be picked again (`trainer=ddp` on another machine, say).
        free: keys, or sections, that may be overridden; the rest is what the run is.

    Raises:
        UsageError: as `compose`; or another key, or a config of another version of this project.
    """
    picks, overrides = parse(argv)
    for name, value in [*picks.items(), *overrides]:
        allowed = name in anew if name in picks else any(f"{name}.".startswith(f"{key}.") for key in free)
        choice = ", ".join([*(f"{group}=" for group in anew), *free])
        require(allowed, f"{name}={value}: an earlier run keeps its own; what can be changed is {choice}")
    try:
        cfg = _layers({**saved["defaults"], **picks})
        kept = [(key, value) for key, value in leaves(saved) if not key.startswith("defaults.")]
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError("the run's config was not written by this project") from error
    options = [(group, one) for group, option in picks.items() for one in (option, saved["defaults"][group])]
    replaced = {f"{group}.{key}" for group, option in options for key, _ in leaves(_option(group, option))}
    for key, value in kept:
        if isinstance(value, str) and "${" in value:  # it could read this machine's environment
            raise UsageError(f"the run's config has {key}={value}: expected a plain value")
        if key not in replaced:
            require(
                has_key(cfg, key) or _is_open(key),
                f"the run was made by another version of this project: it has the key {key}",
            )
            OmegaConf.update(cfg, key, value, merge=False)
    return _override(cfg, overrides)


def parse(argv: list[str]) -> tuple[dict[str, str], list[tuple[str, Any]]]:
    """Returns `argv` as picked options by group, and overrides as (key, text) in order."""
    picks, overrides = {}, []
    known = groups()
    for argument in argv:
        key, equals, text = argument.partition("=")
        right = equals and re.fullmatch(r"\w+(\.\w+)*", key)
        wrong = f"{argument}: expected group=option or key=value, as in norm=dyt or optim.lr=1e-3; --help lists them"
        require(bool(right), wrong)
        if key in known:
            picks[key] = _option_name(text, known[key])
        else:
            key = "init.alpha0" if argument == "norm.alpha0=auto" else SHORT.get(key, key)
            overrides.append((key, Text(text)))
    return picks, overrides


def _option_name(text: str, options: list[str]) -> str:
    """Returns the option that `text` names, in any case or by an alias; or else `text`."""
    name = re.sub(r"[_\W]", "", text.lower())
    return next((one for one in (text, text.lower(), ALIASES.get(name, "")) if one in options), text)


def _layers(choices: Mapping[str, str]) -> DictConfig:
    """Merges train.yaml, the options of `choices` or the defaults, the task, and its changes under these options."""
    base = load_yaml(CONFIGS / "train.yaml")
    name = choices.get("task", base.defaults.task)
    task = _option("task", name)
    chosen = _chosen(name, {**base.defaults, **task.get("defaults", {})}, choices)
    options = {group: _option(group, option) for group, option in chosen.items() if group not in ROOTED}
    changes = _with_sections(CONFIGS / "task" / f"{name}.yaml", task, {group: groups()[group] for group in options})
    plain_task = _without(task, "defaults", *(f"with_{group}" for group in changes))
    picked = [changes[group].get(chosen[group]) or {} for group in sorted(changes, key=lambda group: group == "norm")]
    cfg = OmegaConf.merge(_without(base, "defaults"), options, plain_task, *picked, {"defaults": chosen})
    assert isinstance(cfg, DictConfig)
    return cfg


def _chosen(task: str, defaults: Mapping[str, str], choices: Mapping[str, str]) -> dict[str, str]:
    """Returns the option of each group: that of `choices`, or else of the `defaults` of `task`.

    Raises:
        UsageError: a group that this task has not, or a model that is named after another one.
    """
    sections = ", ".join(group for group in defaults if group not in ROOTED)
    for group, option in choices.items():
        foreign = group in groups() and group not in defaults
        require(not foreign, f"{group}={option}: task={task} has no group {group}; it has {sections}")
    chosen = {**defaults, **choices}
    model = chosen.get("model", "")
    family = family_of(model) or task  # a model of one's own need not be named after any
    require(family == task, f"model={model}: it is made for task={family}, and this is task={task}")
    return chosen


def _with_sections(file: Path, task: DictConfig, known: Mapping[str, list[str]]) -> dict[str, DictConfig]:
    """Returns the sections `with_<group>` of a file by group, in the order of `known`: groups with their options.

    Raises:
        UsageError: a group or an option that is not there.
    """
    found = {str(key).removeprefix("with_"): section for key, section in task.items() if str(key).startswith("with_")}
    for group, section in found.items():
        where = f"{file}: with_{group}"
        require(group in known, f"{where}: this task has no group {group}; it has {', '.join(known)}")
        require(isinstance(section, DictConfig), f"{where}: expected options with what they change")
        for option, changes in section.items():
            hint = f"{did_you_mean(str(option), known[group])}; choose from {', '.join(known[group])}"
            require(option in known[group], f"{where}.{option}: there is no such {group}{hint}")
            require(changes is None or isinstance(changes, DictConfig), f"{where}.{option}: expected keys and values")
    return {group: found[group] for group in known if group in found}


def _override(cfg: DictConfig, overrides: list[tuple[str, Any]], check: bool = True) -> DictConfig:
    """Returns `cfg` with `overrides` applied in order, closed to new keys, with all references between keys checked."""
    result = cfg.copy()
    try:
        for key, value in overrides:
            _check_option(cfg, key)
            for leaf, typed in _typed_values(cfg, key, value):
                OmegaConf.update(result, leaf, typed, merge=False)
        plain(result)
        for key, _ in overrides:  # `key=${other}` must have the type of `key`
            parent, _, name = key.rpartition(".")
            section = OmegaConf.select(result, parent) if parent else result
            if OmegaConf.is_interpolation(section, name):
                typed_value(key, OmegaConf.select(cfg, key), section[name], section[name])
    except OmegaConfBaseException as error:
        message = f"config: {str(error).splitlines()[0]}"
        if "'data." in message:  # of another family, perhaps
            message += f"; do model={cfg.defaults.model} and data={cfg.defaults.data} go together?"
        raise UsageError(message) from error
    if check:
        check_constraints(dict(leaves(plain(result))))
    OmegaConf.set_struct(result, True)
    return result


def _check_option(cfg: DictConfig, key: str) -> None:
    """Refuses a key that only other options of its group have: norm.alpha0 under norm=ln, say."""
    group, _, name = key.partition(".")
    if group in cfg.defaults and group not in ROOTED and not has_key(cfg, key):
        having = [f"{group}={option}" for option in groups()[group] if has_key(_option(group, option), name)]
        here = f"{group}={cfg.defaults[group]}"
        require(not having, f"{key}: there is no such key under {here}; it is one of {', '.join(having)}")


def _typed_values(cfg: DictConfig, key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields `key` with its value in the key's type; for a mapping, its keys with theirs.

    Raises:
        UsageError: no such key, another type, or a key that follows another choice.
    """
    text = value
    if isinstance(value, Text):
        value = parse_yaml(value)
    if not has_key(cfg, key):
        if _is_open(key):
            yield key, value
            return
        if key.startswith("trainer.") and (other := REPLACED.get(key.partition(".")[2])):
            raise UsageError(f"{key}: this project decides it; {other}")
        known = [name for name, _ in leaves(cfg) if not name.startswith("defaults.")] + list(cfg.defaults)
        known += [f"trainer.{name}" for name in PASSED]
        other = HINTS.get(key.rpartition(".")[2])
        hint = f" (did you mean {other}?)" if other else did_you_mean(key, known)
        raise UsageError(f"{key}: there is no such key{hint}; --help lists them")
    parent, _, name = key.rpartition(".")
    section = OmegaConf.select(cfg, parent) if parent else cfg
    _refuse_follower(cfg, key, section)
    if name not in section or (isinstance(value, str) and "${" in value):
        yield key, value
    elif isinstance(section[name], DictConfig) and section[name] and isinstance(value, dict):
        for inner, one in value.items():
            yield from _typed_values(cfg, f"{key}.{inner}", one)
    else:
        yield key, typed_value(key, section[name], value, text)


def _is_open(key: str) -> bool:
    """Returns whether a key may be set that the files do not have."""
    open_sections = ("callbacks.", "logger.", "optim.init_args.")
    return key.startswith(open_sections) or key in (f"trainer.{name}" for name in PASSED)


def _refuse_follower(cfg: DictConfig, key: str, section: DictConfig) -> None:
    """Refuses keys that are not set by themselves: those that name a file's contents, and those of the data."""
    group, _, name = key.partition(".")
    require(group != "defaults", f"{key}: pick an option by {name or 'group'}=<option>")
    of_file = group in cfg.defaults and ((name == "name" and group != "model") or name == "module")
    require(not of_file, f"{key}: it belongs to the file; pick another by {group}=<option>")
    written = OmegaConf.to_container(section, resolve=False).get(key.rpartition(".")[2])  # type: ignore[union-attr]
    of_data = isinstance(written, str) and written.startswith("${data.")
    require(not of_data, f"{key}: the data decide it; set {str(written).strip('${}')}")


def _without(cfg: DictConfig, *names: str) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in names])


def load_yaml(path: Path) -> DictConfig:
    try:
        cfg = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(cfg, DictConfig):
        raise UsageError(f"{path}: expected keys and values")
    return cfg


def _option(group: str, option: str) -> DictConfig:
    options = groups().get(group)
    if options is None:
        raise UsageError(f"{group}={option}: there is no group {group}; the groups are {', '.join(groups())}")
    if option in options:
        return load_yaml(CONFIGS / group / f"{option}.yaml")
    if group in ("callbacks", "experiment", "logger") and option.endswith(".yaml") and Path(option).is_file():
        return load_yaml(Path(option))
    if group in ("callbacks", "logger") and (several := re.fullmatch(r"\[(.*)\]", option)):
        merged = OmegaConf.merge({}, *(_option(group, one.strip()) for one in several[1].split(",")))
        assert isinstance(merged, DictConfig)
        return merged
    if "," in option and COMPARES:
        raise UsageError(f"{group}={option}: expected one {group}; python compare.py {group}={option} trains each")
    guess = did_you_mean(option, options)
    raise UsageError(f"{group}={option}: there is no such {group}{guess}; choose from {', '.join(options)}")


def value_of(key: str, argv: list[str]) -> str | None:
    """Returns the text given for `key`, if any and not null; the last one counts."""
    text = dict(parse(argv)[1]).get(key)
    return None if text == "null" else text


def family_of(model: str) -> str | None:
    """Returns the family that an option of `model=` is named after."""
    families = [family for family in groups()["task"] if f"{model}_".startswith(f"{family}_")]
    return max(families, key=len, default=None)
