"""A comparison as numbers: every cell of the grid with its runs, and how it stands to the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from ...errors import UsageError, require
from .grid import Cell, Grid
from .results import Result
from .statistics import Difference, Spread, paired_difference, spread

MOST = 8  # cells that are told one by one, and have a line each in a panel


@dataclass(frozen=True)
class Comparison:
    """Args:
    grid: the combinations.
    results: the finished runs of each cell.
    metric, higher_is_better: what they are compared by.
    baseline: a swept key with the value that the others are compared to; None with nothing to compare.
    """

    grid: Grid
    results: Mapping[Cell, Sequence[Result]]
    metric: str
    higher_is_better: bool
    baseline: tuple[str, str] | None

    @cached_property
    def cells(self) -> list[Cell]:
        return self.grid.cells

    def values(self, cell: Cell) -> dict[int, float]:
        """The metric by seed, of runs that did not diverge."""
        return {one.seed: one.value for one in self.results.get(cell, ()) if one.value is not None}

    def spread(self, cell: Cell) -> Spread | None:
        return spread(list(self.values(cell).values()))

    def reference(self, cell: Cell) -> Cell | None:
        """The cell that `cell` is compared to: the baseline's, alike in every other key that both have."""
        if self.baseline is None:
            return None
        key, value = self.baseline
        others = [one for one in self.cells if dict(one).get(key) == value]
        mine = dict(cell)
        alike = [one for one in others if all(mine.get(name, text) == text for name, text in one if name != key)]
        return alike[0] if alike else None

    def difference(self, cell: Cell, reference: Cell | None = None) -> Difference | None:
        """To `reference`, or else the cell's own."""
        reference = self.reference(cell) if reference is None else reference
        return None if reference is None else paired_difference(self.values(cell), self.values(reference))

    @cached_property
    def told(self) -> list[Cell]:
        """The cells that a person can read one by one: all, or of many the best for each value of the main key."""
        if len(self.cells) <= MOST:
            return self.cells
        groups: dict[str | None, list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault(dict(cell).get(self.main_key), []).append(cell)
        return [self.best(cells) for cells in groups.values()]

    @property
    def main_key(self) -> str:
        """The key that has the colours: the norm where norms differ, else the first; empty where nothing is swept."""
        return "norm" if "norm" in self.grid.swept else next(iter(self.grid.keys), "")

    def best(self, cells: Sequence[Cell]) -> Cell:
        """By the mean; a cell of which no run has finished comes last."""

        def merit(cell: Cell) -> float:
            one = self.spread(cell)
            return -inf if one is None else one.mean if self.higher_is_better else -one.mean

        return max(cells, key=merit)


def choose_baseline(grid: Grid, asked: str) -> tuple[str, str] | None:
    """`asked` is a value of a swept key, or key=value; without one it is ln, or the first value of the first key.

    Raises:
        UsageError: nothing swept has this value, or several keys have it.
    """
    if not grid.keys:
        require(not asked, f"baseline={asked}: only seeds differ; give another key several values, as in norm=dyt,ln")
        return None
    if not asked:
        first = grid.keys[0]
        return ("norm", "ln") if "ln" in grid.swept.get("norm", []) else (first, grid.swept[first][0])
    key, _, value = asked.rpartition("=")
    found = [name for name in grid.keys if value in grid.swept[name] and key in ("", name)]
    if len(found) != 1:
        choice = ", ".join(f"{name}={one}" for name in grid.keys for one in grid.swept[name])
        raise UsageError(f"baseline={asked}: expected one of {choice}")
    return found[0], value
