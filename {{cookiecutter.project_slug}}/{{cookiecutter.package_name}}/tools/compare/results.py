"""Reads finished runs, and computes means, spreads and paired differences over seeds."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from .grid import Cell, Grid

CONFIDENCE = 0.95
ROUNDING = 1e-6  # metrics are float32: a smaller relative spread of differences is rounding
MAX_CELLS = 8  # with more cells, sentences and curves show only the best of each norm

Curve = dict[int, float]  # value by optimiser step


@dataclass(frozen=True)
class Result:
    """A finished run."""

    seed: int
    summary: Mapping[str, Any]  # its summary.json
    value: float | None  # the compared metric; None if the run diverged
    curves: Mapping[str, Curve]  # by tag, such as `val/loss`
    shift: Mapping[str, Any] | None = None  # what evaluate.py wrote to shift-<name>.json, if it was asked to

    @property
    def alphas(self) -> dict[str, float]:
        """The last alpha of every layer, in order of depth; empty for norms without alpha."""
        tags = sorted(tag for tag in self.curves if tag.startswith("alpha/"))
        return {tag.removeprefix("alpha/"): self.curves[tag][max(self.curves[tag])] for tag in tags}

    @property
    def throughput(self) -> tuple[str, float] | None:
        """The unit, such as `samples`, and how many per second."""
        suffix = "_per_second"
        return next(((key[: -len(suffix)], v) for key, v in self.summary.items() if key.endswith(suffix)), None)


def read_result(run: Path, seed: int, metric: str, shift: str = "") -> Result:
    """Reads `summary.json`, `metrics.csv` and, if it is there, `shift-<shift>.json`.

    Raises:
        ValueError: a file is damaged, or has no such metric.
    """
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        curves = read_curves(run / "metrics.csv")
        file = run / f"shift-{shift}.json"
        shifted = json.loads(file.read_text(encoding="utf-8")) if shift and file.is_file() else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"its files cannot be read: {error}") from error
    if summary.get("diverged"):
        return Result(seed, summary, None, curves, shifted)
    if metric not in summary:
        raise ValueError(f"it has no {metric}; it has {', '.join(sorted(tag for tag in summary if '/' in tag))}")
    return Result(seed, summary, summary[metric], curves, shifted)  # null stands for nan and inf


def read_curves(file: Path) -> dict[str, Curve]:
    """Reads a metrics.csv; of several values at one step the last one counts."""
    curves: dict[str, Curve] = {}
    with file.open(newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            curves.setdefault(row["tag"], {})[int(row["step"])] = float(row["value"])
    return curves


def band(curves: Sequence[Mapping[int, float]]) -> np.ndarray:
    """Returns step, mean, least and greatest value (4, N) over the steps that all curves have; NaN does not count."""
    if not curves:
        return np.zeros((4, 0))
    steps = sorted(set.intersection(*map(set, curves)))
    values = np.array([[curve[step] for step in steps] for curve in curves])
    known = np.isfinite(values).any(axis=0)
    values = np.ma.masked_invalid(values[:, known])
    return np.array([np.array(steps)[known], values.mean(axis=0), values.min(axis=0), values.max(axis=0)])


def thin(curve: Curve, points: int = 60) -> Curve:
    """Averages a long curve over equal stretches of steps, because losses of single batches are noisy."""
    if len(curve) <= points:
        return curve
    pieces = np.array_split(np.array(sorted(curve)), points)
    return {int(piece[-1]): fmean(curve[step] for step in piece.tolist()) for piece in pieces}


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over `n` seeds; a single one has no deviation."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """The mean difference over `n` seeds and, where there is one, its confidence interval."""

    mean: float
    interval: tuple[float, float] | None
    n: int

    @property
    def excludes_zero(self) -> bool:
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Returns `ours` minus `theirs`, paired by seed, with Student's confidence interval; None without common seeds.

    Pairing removes what a seed does to both, such as the order of the data. One seed has no interval, and neither have
    differences that are all equal, which happens to metrics that count few samples.
    """
    from scipy.stats import ttest_rel  # slow to import: a mistyped key should not wait for it

    seeds = sorted(ours.keys() & theirs.keys())
    a, b = np.array([ours[seed] for seed in seeds]), np.array([theirs[seed] for seed in seeds])
    if not seeds:
        return None
    mean = float((a - b).mean())
    if len(seeds) == 1 or (a - b).std(ddof=1) <= ROUNDING * max(abs(a).max(), abs(b).max()):
        return Difference(mean, None, len(seeds))
    interval = ttest_rel(a, b).confidence_interval(CONFIDENCE)
    return Difference(mean, (float(interval.low), float(interval.high)), len(seeds))


@dataclass(frozen=True)
class Comparison:
    """The grid with its finished runs, compared by one metric."""

    grid: Grid
    results: Mapping[Cell, Sequence[Result]]
    metric: str
    higher_is_better: bool
    baseline: tuple[str, str] | None  # the swept key and value that the others are compared to, if any

    def values(self, cell: Cell) -> dict[int, float]:
        """Returns the metric by seed, without diverged runs."""
        return {one.seed: one.value for one in self.results.get(cell, ()) if one.value is not None}

    def spread(self, cell: Cell) -> Spread | None:
        """Returns None if no run has finished."""
        values = list(self.values(cell).values())
        return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values)) if values else None

    def difference(self, cell: Cell, reference: Cell | None = None) -> Difference | None:
        """Returns the difference to `reference`, or else to the cell's own reference."""
        reference = self.reference(cell) if reference is None else reference
        return None if reference is None else paired_difference(self.values(cell), self.values(reference))

    def reference(self, cell: Cell) -> Cell | None:
        """Returns the baseline's cell that agrees with `cell` in all other keys that both have."""
        if self.baseline is None:
            return None
        key, ours = self.baseline[0], dict(cell)
        others = [one for one in self.grid.cells if self.baseline in one]
        alike = (one for one in others if all(ours.get(name, text) == text for name, text in one if name != key))
        return next(alike, None)

    @cached_property
    def digits(self) -> int:
        """Decimals of printed metrics: the usual deviation has two figures; 2 to 6, and 4 without a deviation."""
        spreads = [self.spread(cell) for cell in self.grid.cells]
        stds = sorted(one.std for one in spreads if one is not None and one.std)
        return min(6, max(2, 1 - math.floor(math.log10(stds[len(stds) // 2])))) if stds else 4

    @property
    def main_key(self) -> str:
        """The key that chooses the colour: the norm if norms differ, else the first; empty if only seeds differ."""
        return "norm" if "norm" in self.grid.swept else next(iter(self.grid.keys), "")

    @cached_property
    def shown(self) -> list[Cell]:
        """The cells of sentences and curves: all, or of many the best one for each value of the main key."""
        cells = self.grid.cells
        if len(cells) <= MAX_CELLS:
            return cells
        groups: dict[str | None, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(dict(cell).get(self.main_key), []).append(cell)
        return [max(group, key=self._merit) for group in groups.values()]

    def shown_reference(self, cell: Cell) -> Cell | None:
        """Returns what a shown cell is compared to: its own reference, or the best cell of the baseline."""
        own = self.reference(cell)
        if own is None or len(self.shown) == len(self.grid.cells):
            return own
        return next((other for other in self.shown if self.baseline in other), own)

    def _merit(self, cell: Cell) -> float:
        one = self.spread(cell)
        return -math.inf if one is None else one.mean if self.higher_is_better else -one.mean
