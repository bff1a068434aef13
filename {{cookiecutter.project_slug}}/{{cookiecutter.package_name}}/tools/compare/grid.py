"""argv -> every combination of its values, composed and checked."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from statistics import stdev
from typing import Any

from ...config import compose, fit_keys, groups, parse, plain, to_argv, without
from ...errors import UsageError, require

OURS = ("name", "runs", "resume")  # keys by which a comparison places its runs
# Where things lie and who loads them: they change no number, so a run goes on under others.
FREE = ("logger", "data.download", "data.pin_memory", "data.workers")

Cell = tuple[tuple[str, str], ...]  # swept keys with their values as typed, all but the seed


@dataclass(frozen=True)
class Combination:
    """One run: its place in the comparison, the overrides of train.py that make it, and its config.

    `name` ends in a digest of the resolved config, so that runs of other settings are others, however they were typed.
    """

    cell: Cell
    seed: int
    argv: list[str]
    cfg: dict[str, Any]
    name: str

    @property
    def digest(self) -> str:
        return self.name.rpartition("-")[2]


@dataclass(frozen=True)
class Grid:
    """All combinations, seed by seed, so that one that is broken off compares what it has."""

    swept: dict[str, list[str]]
    combinations: list[Combination]
    notes: list[str]  # what was left out, in one line each

    @property
    def keys(self) -> list[str]:
        return [key for key in self.swept if key != "seed"]

    @property
    def numeric(self) -> list[str]:
        """Swept keys whose values are numbers."""
        return [key for key in self.keys if key not in groups() and all(map(_is_number, self.swept[key]))]

    @property
    def cells(self) -> list[Cell]:
        """In the order of the values as typed, the first key slowest."""
        order = {key: {value: at for at, value in enumerate(values)} for key, values in self.swept.items()}
        cells = dict.fromkeys(one.cell for one in self.combinations)
        return sorted(cells, key=lambda cell: [order[key].get(dict(cell).get(key, ""), -1) for key in self.keys])

    def label(self, cell: Cell) -> str:
        """An option by itself, and other values with the last part of their key: `dyt, alpha0=0.5`."""
        if not cell:
            return str(next(one.cfg["norm"]["name"] for one in self.combinations))
        return ", ".join(value if key in groups() else f"{short(key)}={value}" for key, value in cell)


def short(key: str) -> str:
    return key.rpartition(".")[2]


def combine(argv: Sequence[str]) -> Grid:
    """Every combination of the values that `argv` gives, separated by commas, to its keys.

    A key that the option of one combination has, and that of another has not (`norm=dyt,ln norm.alpha0=0.5,1`), is left
    out of the latter, which then is one run.

    Raises:
        UsageError: a combination that train.py would refuse, a key that the comparison sets itself, or values that make
            no difference.
    """
    parse(list(argv))  # refuses what is not key=value
    typed = dict(argument.split("=", 1) for argument in argv)
    for key in OURS:
        require(key not in typed, f"{key}={typed.get(key)}: compare.py places its runs itself; out=<folder> says where")
    values = {key: split(key, text) for key, text in typed.items()}
    swept = {key: several for key, several in values.items() if len(several) > 1}
    keys = sorted(values, key=lambda key: key != "seed")  # the seed slowest
    chosen = [dict(zip(keys, one, strict=True)) for one in product(*(values[key] for key in keys))]
    fitting, notes = fit_keys(chosen)
    combinations: dict[str, Combination] = {}
    for one in fitting:
        kept = {key: one[key] for key in typed if key in one}
        combination = _combination(kept, [key for key in swept if key in kept])
        same = combinations.setdefault(combination.digest, combination)
        if same.cell != combination.cell:
            cells = " and ".join(" ".join(f"{key}={text}" for key, text in each.cell) for each in (same, combination))
            raise UsageError(f"{cells} are one and the same run; give values that change something")
    return Grid(swept, list(combinations.values()), notes)


def split(key: str, text: str) -> list[str]:
    """`text` at its commas, less those in brackets and quotes; spaces around values are none of theirs.

    Raises:
        UsageError: an empty value, or one that is there twice.
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote or character in "\"'":
            quote = "" if character == quote else quote or character
        else:
            depth += (character in "[{(") - (character in "]})")
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    if len(parts) == 1 or depth or quote:  # what does not close is one value, for the config to judge
        return [text]
    parts = [part.strip() for part in parts]
    require(all(parts), f"{key}={text}: there is a value missing between its commas")
    twice = [part for part in parts if parts.count(part) > 1]
    require(not twice, f"{key}={text}: {twice[0] if twice else ''} is there twice")
    return parts


def is_geometric(values: Sequence[float]) -> bool:
    """Whether rising `values` keep their ratio rather than their distance."""
    if len(values) < 3 or values[0] <= 0:
        return False
    steps = [b - a for a, b in pairwise(values)]
    ratios = [b / a for a, b in pairwise(values)]
    return _variation(ratios) < _variation(steps)


def _variation(values: Sequence[float]) -> float:
    return stdev(values) / (sum(values) / len(values))


def _combination(kept: Mapping[str, str], swept: Sequence[str]) -> Combination:
    argv = to_argv(kept)
    cfg = plain(compose(argv))
    identity = without(cfg, ("defaults", *OURS, *FREE))
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    others = [f"{short(key)}{kept[key]}" for key in swept if key not in ("norm", "seed")]
    words = [cfg["norm"]["name"], *others, f"seed{cfg['seed']}"]
    name = "-".join(re.sub(r"[^\w.]+", "_", word).strip("_.")[:40] for word in words)
    cell = tuple((key, kept[key]) for key in swept if key != "seed")
    return Combination(cell, cfg["seed"], argv, cfg, f"{name[:100]}-{digest}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def numbers(grid: Grid, key: str) -> list[float]:
    """The values of a numeric key, rising."""
    return sorted(float(value) for value in grid.swept[key])


def tracked_metric(grid: Grid, asked: str) -> tuple[str, bool]:
    """The metric that is compared, and whether more of it is better.

    Args:
        asked: `test/acc5:max`, `test/loss`, or nothing for what the task's best checkpoint is best at, on test.

    Raises:
        UsageError: the combinations have no metric in common, or nobody says which way is better.
    """
    monitors = {(one.cfg["task"]["monitor"], one.cfg["task"]["monitor_mode"]) for one in grid.combinations}
    if not asked:
        several = ", ".join(sorted(f"{tag} ({mode})" for tag, mode in monitors))
        require(len(monitors) == 1, f"the combinations are best at {several}; metric=<tag> says what to compare")
        ((tag, mode),) = monitors
        return f"test/{tag.partition('/')[2]}", mode == "max"
    tag, _, way = asked.partition(":")
    ways = {mode for monitor, mode in monitors if monitor.partition("/")[2] == tag.partition("/")[2]}
    ways |= {"min"} if tag.endswith("/loss") else set()
    way = way or (ways.pop() if len(ways) == 1 else "")
    if way not in ("max", "min") or "/" not in tag:
        raise UsageError(f"metric={asked}: expected a tag and which way is better, as in metric=test/loss:min")
    return tag, way == "max"
