"""Reads finished runs, and computes means, spreads and paired differences over seeds."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, median_high, stdev
from typing import Any, NamedTuple

import numpy as np

from .grid import Cell, Grid

CONFIDENCE = 0.95
ROUNDING = 1e-6  # metrics are float32: a smaller relative spread of differences is rounding
MAX_CELLS = 8  # with more cells, sentences and curves show only the best of each norm

Curve = dict[int, float]  # value by optimiser step


class Result(NamedTuple):
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


def read_result(run: Path, seed: int, metric: str, shift: str = "") -> Result:
    """Reads `summary.json`, `metrics.csv` and, if it is there, `shift-<shift>.json`.

    Raises:
        ValueError: a file is damaged, or has no such metric.
    """
    from ...loggers import read_metrics  # imports Lightning, for which a mistyped key should not wait

    try:
        summary = json.loads((run / "summary.json").read_bytes())
        curves = read_metrics(run / "metrics.csv")
        file = run / f"shift-{shift}.json"
        shifted = json.loads(file.read_bytes()) if shift and file.is_file() else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"its files cannot be read: {error}") from error
    if metric not in summary and not summary.get("diverged"):
        raise ValueError(f"it has no {metric}; it has {', '.join(sorted(tag for tag in summary if '/' in tag))}")
    value = None if summary.get("diverged") else summary[metric]  # null stands for nan and inf
    return Result(seed, summary, value, curves, shifted)


def band(curves: Sequence[Curve]) -> np.ndarray:
    """Returns step, mean, least and greatest value (4, N) over the steps that all curves have; NaN does not count."""
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    values = np.ma.masked_invalid([[curve[step] for step in steps] for curve in curves] or np.zeros((1, 0)))
    found = np.array([steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0)])
    return found[:, ~np.ma.getmaskarray(values).all(axis=0)]


def thin(curve: Curve, points: int = 60) -> Curve:
    """Averages a long curve over equal stretches of steps, because losses of single batches are noisy."""
    if len(curve) <= points:
        return curve
    pieces = np.array_split(np.array(sorted(curve)), points)
    return {int(piece[-1]): fmean(curve[step] for step in piece.tolist()) for piece in pieces}


class Spread(NamedTuple):
    """The mean and the sample standard deviation over `n` seeds; a single one has no deviation."""

    mean: float
    std: float | None
    n: int


class Difference(NamedTuple):
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

    def difference(self, cell: Cell, reference: Cell | None) -> Difference | None:
        return None if reference is None else paired_difference(self.values(cell), self.values(reference))

    def reference(self, cell: Cell) -> Cell | None:
        """Returns the baseline's cell that agrees with `cell` in all other keys that both have."""
        ours = dict(cell) | dict([self.baseline] if self.baseline else [])
        others = (one for one in self.grid.cells if self.baseline in one)
        return next((one for one in others if all(ours.get(key, text) == text for key, text in one)), None)

    @cached_property
    def digits(self) -> int:
        """Decimals of printed metrics: the usual deviation has two figures; 2 to 6, and 4 without a deviation."""
        stds = [one.std for cell in self.grid.cells if (one := self.spread(cell)) and one.std]
        return min(6, max(2, 1 - math.floor(math.log10(median_high(stds))))) if stds else 4

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
        names = dict.fromkeys(dict(cell).get(self.main_key) for cell in cells)
        return [max((c for c in cells if dict(c).get(self.main_key) == name), key=self._merit) for name in names]

    def shown_reference(self, cell: Cell) -> Cell | None:
        """Returns what a shown cell is compared to: its own reference, or the best cell of the baseline."""
        own = self.reference(cell)
        if own is None or own in self.shown:
            return own
        return next((one for one in self.shown if self.baseline in one), own)

    def _merit(self, cell: Cell) -> float:
        one = self.spread(cell)
        return -math.inf if one is None else one.mean if self.higher_is_better else -one.mean
