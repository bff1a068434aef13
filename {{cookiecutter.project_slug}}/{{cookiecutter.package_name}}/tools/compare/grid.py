"""Composes the config of every combination of `norm=dyt,ln seed=0,1`, before anything is trained."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from ...config import compose, groups, parse, parse_yaml, plain, to_argv, without
from ...config.constraints import is_number
from ...config.errors import UsageError, require
from ..fit_keys import fit_keys

OWN_KEYS = ("name", "runs", "resume")  # set by the comparison itself
# Keys that change no number: they are no part of a run's identity, and a run may be resumed with other values.
FREE_KEYS = ("logger", "data.download", "data.pin_memory", "data.workers")
MOST = 1000  # combinations
COMMA = re.compile(r",(?![^\[{(]*[\]})])")  # outside brackets

Cell = tuple[tuple[str, str], ...]  # swept keys with their values as typed, without the seed


@dataclass(frozen=True)
class Combination:
    """One run: its cell in the grid, its overrides of train.py, and its resolved config.

    `name` ends in a digest of the config, so a run is found again however its arguments were typed.
    """

    cell: Cell
    argv: list[str]
    cfg: dict[str, Any]
    name: str

    @property
    def seed(self) -> int:
        return int(self.cfg["seed"])

    @property
    def digest(self) -> str:
        return self.name.rpartition("-")[2]


@dataclass(frozen=True)
class Grid:
    """All combinations, seed by seed, so that an interrupted comparison has complete sets of cells."""

    swept: dict[str, list[str]]  # the keys with several values
    combinations: list[Combination]
    notes: list[str]  # one line for each key that was left out somewhere

    @property
    def keys(self) -> list[str]:
        return [key for key in self.swept if key != "seed"]

    @property
    def numeric(self) -> list[str]:
        """The swept keys whose values are numbers."""
        numbers = {key: [is_number(parse_yaml(text)) for text in self.swept[key]] for key in self.keys}
        return [key for key in self.keys if key not in groups() and all(numbers[key])]

    @property
    def cells(self) -> list[Cell]:
        """All cells in the order of the typed values, the first key slowest."""
        return list(dict.fromkeys(one.cell for one in self.combinations))

    def label(self, cell: Cell) -> str:
        """Returns for example `dyt, alpha0=0.5`."""
        if not cell:
            return str(self.combinations[0].cfg["norm"]["name"])
        return ", ".join(value if key in groups() else f"{short(key)}={value}" for key, value in cell)


def short(key: str) -> str:
    return key.rpartition(".")[2]


def short_tag(tag: str) -> str:
    """Returns `acc` of `val/acc`."""
    return tag.partition("/")[2]


def combine(argv: Sequence[str]) -> Grid:
    """Returns every combination of the comma-separated values in `argv`.

    A key that one option has and another lacks (`norm=dyt,ln norm.alpha0=0.5,1`) is left out where it is lacking.

    Raises:
        UsageError: train.py would refuse a combination, the comparison sets this key itself, or two combinations are
            the same run.
    """
    parse(list(argv))  # checks that all are key=value
    typed = dict(argument.split("=", 1) for argument in argv)
    for key in OWN_KEYS:
        require(key not in typed, f"{key}={typed.get(key)}: compare.py sets it itself; out=<folder> says where runs go")
    values = {key: split(key, text) for key, text in typed.items()}
    number = prod(map(len, values.values()))
    require(number <= MOST, f"expected at most {MOST} combinations, not {number}: split them into several comparisons")
    swept = {key: several for key, several in values.items() if len(several) > 1}
    keys = sorted(values, key=lambda key: key != "seed")  # the seed slowest
    fitting, notes = fit_keys([dict(zip(keys, one, strict=True)) for one in product(*(values[key] for key in keys))])
    combinations: dict[str, Combination] = {}
    for one in fitting:
        combination = _combination({key: one[key] for key in typed if key in one}, [key for key in swept if key in one])
        same = combinations.setdefault(combination.digest, combination)
        if same.cell != combination.cell:
            cells = " and ".join(" ".join(to_argv(dict(each.cell))) for each in (same, combination))
            raise UsageError(f"{cells} are the same run; give values that change something")
    return Grid(swept, list(combinations.values()), notes)


def split(key: str, text: str) -> list[str]:
    """Returns the parts of `text` between its commas; commas inside brackets do not count.

    Raises:
        UsageError: a part is empty, or is there twice.
    """
    parts = [part.strip() for part in COMMA.split(text)]
    require(len(parts) == 1 or all(parts), f"{key}={text}: a value between two commas is missing")
    require(len(set(parts)) == len(parts), f"{key}={text}: a value is there twice")
    return parts if len(parts) > 1 else [text]


def _combination(texts: dict[str, str], swept: Sequence[str]) -> Combination:
    argv = to_argv(texts)
    cfg = plain(compose(argv))
    identity = without(cfg, ("defaults", *OWN_KEYS, *FREE_KEYS))
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    others = [f"{short(key)}{texts[key]}" for key in swept if key not in ("norm", "seed")]
    words = [cfg["norm"]["name"], *others, f"seed{cfg['seed']}"]
    name = "-".join(re.sub(r"[^\w.]+", "_", word).strip("_.")[:40] for word in words)
    cell = tuple((key, texts[key]) for key in swept if key != "seed")
    return Combination(cell, argv, cfg, f"{name[:100]}-{digest}")


def choose_metric(grid: Grid, asked: str) -> tuple[str, bool]:
    """Returns the metric that is compared, and whether higher is better.

    Args:
        asked: for example `test/acc5:max` or `test/loss`; empty for the monitored metric on the test split.

    Raises:
        UsageError: the combinations monitor different metrics, or it is not known whether higher is better.
    """
    modes = {one.cfg["task"]["monitor"]: one.cfg["task"]["monitor_mode"] for one in grid.combinations}
    if not asked:
        require(len(modes) == 1, f"the combinations monitor {', '.join(sorted(modes))}; choose one with metric=<tag>")
        asked = f"test/{short_tag(next(iter(modes)))}"
    tag, _, mode = asked.partition(":")
    mode = mode or ({short_tag(one): mode for one, mode in modes.items()} | {"loss": "min"}).get(short_tag(tag), "")
    require(mode in ("max", "min"), f"metric={asked}: expected a tag with max or min, as in metric=test/loss:min")
    return tag, mode == "max"


def choose_baseline(grid: Grid, asked: str) -> tuple[str, str] | None:
    """Returns the swept key and value that the others are compared to; None if only seeds differ.

    Args:
        asked: a value or key=value; empty for norm=ln if it is there, else the first value of the first key.

    Raises:
        UsageError: no swept key has this value, or several have it.
    """
    pairs = [(key, value) for key in grid.keys for value in grid.swept[key]]
    if not asked:
        return next((pair for pair in pairs if pair == ("norm", "ln")), pairs[0] if pairs else None)
    key, _, value = asked.rpartition("=")
    found = [pair for pair in pairs if pair[1] == value and key in ("", pair[0])]
    choices = ", ".join(f"{key}={value}" for key, value in pairs)
    require(len(found) == 1, f"baseline={asked}: expected one of {choices or 'the values of a swept key'}")
    return found[0]
