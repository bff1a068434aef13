"""What a comparison says, in the order in which a person reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib import rc_context
from matplotlib.figure import Figure

from .comparison import Comparison
from .figures import Look, alpha, curves, scores, shift
from .figures_sweep import sweep
from .grid import Cell
from .sentences import caveat, decimals, number, sentence, shown_interval, shown_spread
from .style import SETTINGS


@dataclass(frozen=True)
class Report:
    """Args:
    state: how much of the comparison there is.
    failed: the last line of each run that failed, by its name.
    notes: what was left out, and what else to know of the numbers.
    details: how it was made, by what is told.
    """

    comparison: Comparison
    state: str
    command: str
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        grid = self.comparison.grid
        swept = [f"{key} = {', '.join(grid.swept[key])}" for key in grid.keys]
        seeds = len({one.seed for one in grid.combinations})
        return "; ".join([*swept, f"{seeds} seeds" if seeds > 1 else "one seed"])

    @property
    def precision(self) -> int:
        return decimals([self.comparison.spread(cell) for cell in self.comparison.cells])

    def sentences(self) -> list[str]:
        """Of every cell, compared to its own baseline; or, of many, of the best ones, to the best of the baseline."""
        return [self._sentence(cell) for cell in self.comparison.told]

    def caveat(self) -> str:
        one = self.comparison
        compared = [cell for cell in one.told if self._reference(cell) not in (None, cell)]
        differences = [one.difference(cell, self._reference(cell)) for cell in compared]
        seeds = [each.n for each in differences if each is not None and each.interval]
        text = caveat(len(seeds), min(seeds, default=0))
        if len(one.told) < len(one.cells):
            text += (
                f" Of {len(one.cells)} cells the best of each {one.main_key} is told, chosen by this very metric, which"
                " flatters it: measure the chosen ones again under other seeds. The table has all."
            )
        return text.strip()

    def _reference(self, cell: Cell) -> Cell | None:
        one, own = self.comparison, self.comparison.reference(cell)
        if own is None or one.baseline is None or len(one.told) == len(one.cells):
            return own
        return next((other for other in one.told if one.baseline in other), own)

    def _sentence(self, cell: Cell) -> str:
        one, label = self.comparison, self.comparison.grid.label
        reference = self._reference(cell)
        baseline = "" if reference is None else label(reference)
        difference = one.difference(cell, reference)
        line = sentence(label(cell), one.spread(cell), difference, baseline, one.higher_is_better, self.precision)
        if diverged := len(one.results.get(cell, ())) - len(one.values(cell)):
            line += f" {diverged} of its runs diverged: {one.metric} is no number there."
        return line

    def table(self) -> list[list[str]]:
        """Rows of texts, the head first."""
        one = self.comparison
        units = {each.rate[0] for results in one.results.values() for each in results if each.rate}
        rate = f"{units.pop()}/s" if len(units) == 1 else "per second"
        head = ["", one.metric, "difference", "95 % interval", "seconds", rate, "peak memory", "parameters"]
        return [head, *([one.grid.label(cell), *self._numbers(cell)] for cell in one.cells)]

    def _numbers(self, cell: Cell) -> list[str]:
        one, results = self.comparison, self.comparison.results.get(cell, ())
        spread, difference = one.spread(cell), one.difference(cell)
        interval = mean = ""
        if one.reference(cell) == cell:
            mean = "baseline"
        elif difference is not None:
            mean = f"{number(difference.mean, self.precision, sign=True)} (n={difference.n})"
            if difference.interval is not None:
                interval = shown_interval(difference.interval, self.precision)
        costs = [
            _mean([each.summary.get("seconds") for each in results], "{:,.0f}"),
            _mean([each.rate[1] if each.rate else None for each in results], "{:,.0f}"),
            _mean([_mebibytes(each.summary.get("peak_memory_bytes")) for each in results], "{:,.0f} MiB"),
            _mean([each.summary.get("parameters") for each in results], "{:,.0f}"),
        ]
        return [shown_spread(spread, self.precision) if spread else "none", mean, interval, *costs]

    def figures(self) -> dict[str, Figure]:
        look = Look(self.comparison)
        if not any(self.comparison.values(cell) for cell in self.comparison.cells):
            return {}
        with rc_context(SETTINGS):
            drawn = {
                "scores": scores(self.comparison, look),
                "sweep": sweep(self.comparison, look),
                "shift": shift(self.comparison, look),
                "curves": curves(self.comparison, look),
                "alpha": alpha(self.comparison, look),
            }
        return {name: figure for name, figure in drawn.items() if figure is not None}


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(sum(known) / len(known)) if known else ""


def _mebibytes(count: float | None) -> float | None:
    return None if count is None else count / 2**20
