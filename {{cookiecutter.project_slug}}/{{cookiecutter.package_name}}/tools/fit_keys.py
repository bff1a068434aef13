"""Command lines for several options of a group, each without the keys of the others."""

from collections.abc import Mapping, Sequence
from functools import cache

from omegaconf import DictConfig

from ..config import SHORT, compose, groups, has_key, to_argv


def fit_keys(chosen: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
    """Removes from each of `chosen`, texts by key, the keys that only others' options have; returns them and notes.

    So `norm=dyt,ln norm.alpha0=1` can be several command lines. A key that none of them has stays, to be refused.
    """

    @cache
    def has(picks: tuple[tuple[str, str], ...], key: str) -> bool:
        return has_key(composed(picks), SHORT.get(key, key))

    @cache
    def composed(picks: tuple[tuple[str, str], ...]) -> DictConfig:
        return compose(to_argv(dict(picks)), check=False)

    picks = [tuple((key, text) for key, text in one.items() if key in groups()) for one in chosen]
    keys = dict.fromkeys(key for one in chosen for key in one if key not in groups())
    known = [key for key in keys if any(has(one, key) for one in picks)]
    kept, notes = [], set[str]()
    for one, picked in zip(chosen, picks, strict=True):
        missing = [key for key in known if key in one and not has(picked, key)]
        kept.append({key: text for key, text in one.items() if key not in missing})
        for key in missing:
            group = key.partition(".")[0]
            notes.add(f"{key}: {group}={one.get(group)} has no such key, and is run without it")
    return kept, sorted(notes)
