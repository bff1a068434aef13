"""Figures of every comparison: the metric by seed, differences, curves, alpha over depth, robustness."""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..robustness.evaluate import curves as by_kind
from .comparison import Comparison
from .grid import Cell, short
from .results import band, thinned
from .style import FAINT, INK, RULE, WIDTH, colours, label_ends, new_figure

CAPTIONS = {
    "scores": "Dots are runs, the upright stroke their mean, the line a standard deviation to either side. Right: mean"
    " difference by seed, with its 95 % interval where there is one.",
    "sweep": "Mean over seeds. Lines: shaded by a standard deviation to either side. Heat maps: brighter is better, and"
    " the best of each map is bold.",
    "shift": "Mean over seeds, shaded from the least to the greatest.",
    "curves": "Mean over seeds, shaded from the least to the greatest. train/loss is averaged over stretches of steps.",
    "alpha": "Layers from the input downwards; mean over seeds, shaded from the least to the greatest.",
}
STYLES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))


class Look:
    """Colour and dashes of every cell: the norm has the colour where norms differ, else the first swept key."""

    def __init__(self, comparison: Comparison) -> None:
        grid = comparison.grid
        self.key = comparison.main_key
        names = grid.swept.get(self.key, [""])
        ordered = self.key in grid.numeric
        self._colours = colours(sorted(names, key=float) if ordered else names, ordered)
        if not grid.keys:
            self._colours = colours([grid.label(())])
            self._colours[""] = self._colours.pop(grid.label(()))
        rest = list(dict.fromkeys(self._rest(cell) for cell in comparison.cells))
        self._styles = {one: STYLES[at % len(STYLES)] for at, one in enumerate(rest)}

    def group(self, cell: Cell) -> str:
        return dict(cell).get(self.key, "")

    def colour(self, cell: Cell) -> str:
        return self._colours.get(self.group(cell), FAINT)

    def style(self, cell: Cell) -> str | tuple[int, tuple[float, ...]]:
        return self._styles[self._rest(cell)]

    def _rest(self, cell: Cell) -> Cell:
        return tuple((key, value) for key, value in cell if key != self.key)


def scores(comparison: Comparison, look: Look) -> Figure:
    """A row for each cell: its runs and their mean; beside that its difference to the baseline, with the interval."""
    cells = [cell for cell in comparison.cells if comparison.values(cell)]
    compared = [cell for cell in cells if comparison.reference(cell) not in (None, cell)]
    figure = new_figure(1.0 + 0.36 * len(cells), WIDTH if compared else 0.62 * WIDTH)
    panels = figure.subplots(1, 2 if compared else 1, sharey=True, squeeze=False)[0]
    way = "higher" if comparison.higher_is_better else "lower"
    panels[0].set_title(f"{comparison.metric}, {way} is better")
    panels[0].set_yticks(range(len(cells)), [comparison.grid.label(cell) for cell in cells], color=INK, size=9)
    panels[0].set_ylim(len(cells) - 0.4, -0.6)
    for row, cell in enumerate(cells):
        one, colour = comparison.spread(cell), look.colour(cell)
        assert one is not None
        values = list(comparison.values(cell).values())
        if one.std is not None:
            panels[0].plot([one.mean - one.std, one.mean + one.std], [row, row], color=colour, lw=2, alpha=0.45)
        panels[0].plot(values, [row] * len(values), "o", ms=4.5, color=colour, mec="none", alpha=0.55)
        panels[0].plot(one.mean, row, "|", ms=13, mew=2.4, color=colour)
    if compared:
        _differences(comparison, look, panels[1], cells)
    for axes in panels:
        _bare(axes)
    return figure


def _differences(comparison: Comparison, look: Look, axes: Axes, cells: Sequence[Cell]) -> None:
    assert comparison.baseline is not None
    key, value = comparison.baseline
    axes.set_title(f"difference to {value if key == 'norm' else f'{short(key)}={value}'} by seed, 95 % interval")
    axes.axvline(0, color=FAINT, lw=1)
    for row, cell in enumerate(cells):
        difference, colour = comparison.difference(cell), look.colour(cell)
        if difference is None or comparison.reference(cell) == cell:
            continue
        if difference.interval is not None:
            axes.plot(difference.interval, [row, row], color=colour, lw=2.2, solid_capstyle="butt")
        axes.plot(difference.mean, row, "o", ms=7, color=colour, mec="none")
    axes.margins(x=0.08)


def curves(comparison: Comparison, look: Look) -> Figure | None:
    """Training loss, validation loss and the validated metric over steps: means, and from least to greatest."""
    validated = f"val/{comparison.metric.partition('/')[2]}"
    tags = dict.fromkeys(["train/loss", "val/loss", validated])
    cells = [cell for cell in comparison.told if comparison.results.get(cell)]
    lines = {
        tag: {
            cell: band([thinned(one.curves[tag]) for one in comparison.results[cell] if tag in one.curves])
            for cell in cells
        }
        for tag in tags
    }
    shown = [tag for tag in lines if any(steps for steps, *_ in lines[tag].values())]
    if not shown:
        return None
    figure = new_figure(3.0)
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, tag in zip(panels, shown, strict=True):
        for cell, (steps, mean, low, high) in lines[tag].items():
            if steps:
                one = "o" if len(steps) == 1 else ""
                axes.plot(steps, mean, marker=one, ms=4, color=look.colour(cell), ls=look.style(cell), lw=1.6)
                axes.fill_between(steps, low, high, color=look.colour(cell), alpha=0.13, lw=0)
        axes.set_title(tag)
        axes.set_xlabel("optimiser step")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _settled(axes, [points for points in lines[tag].values() if points[0]])
    ends = {cell: mean[-1] for cell, (_, mean, *_) in lines[shown[-1]].items() if mean}
    named = [(y, comparison.grid.label(cell), look.colour(cell)) for cell, y in ends.items()]
    label_ends(panels[-1], named, 2.2)
    return figure


def _settled(axes: Axes, lines: Sequence[tuple[list[int], list[float], list[float], list[float]]]) -> None:
    """Cuts off the first values of long curves, next to which the rest would be flat."""
    tails = [value for _, _, low, high in lines for value in (*low[len(low) // 6 :], *high[len(high) // 6 :])]
    if tails and min(len(steps) for steps, *_ in lines) >= 12:
        margin = 0.05 * (max(tails) - min(tails)) or 0.05
        axes.set_ylim(min(tails) - margin, max(tails) + margin)


def alpha(comparison: Comparison, look: Look) -> Figure | None:
    """alpha of every layer at the end, layer by layer downwards: mean, and from least to greatest."""
    runs = {cell: [one.alphas for one in comparison.results.get(cell, ()) if one.alphas] for cell in comparison.told}
    runs = {cell: alphas for cell, alphas in runs.items() if alphas}
    deepest = max((list(alphas[0]) for alphas in runs.values()), key=len, default=[])
    if not deepest:
        return None
    figure = new_figure(1.2 + min(0.2 * len(deepest), 8.0), 0.72 * WIDTH)
    axes = figure.add_subplot()
    handles = []
    for cell, alphas in runs.items():
        values = np.array([list(one.values()) for one in alphas if len(one) == len(alphas[0])])
        rows, mean = range(values.shape[1]), values.mean(0)
        colour, label = look.colour(cell), comparison.grid.label(cell)
        axes.fill_betweenx(rows, values.min(0), values.max(0), color=colour, alpha=0.13, lw=0)
        handles += axes.plot(mean, rows, marker="o", ms=4, mec="none", color=colour, ls=look.style(cell), label=label)
    every = -(-len(deepest) // 40)
    names = [re.sub(r"^\d+_", "", layer) for layer in deepest]
    axes.set_yticks(range(0, len(names), every), names[::every])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("alpha at the end of training")
    _bare(axes)
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelcolor="linecolor")
    return figure


def shift(comparison: Comparison, look: Look) -> Figure | None:
    """The metric against the strength of each kind of shift, from none on, and as the mean over kinds."""
    runs = {cell: [one.shift for one in comparison.results.get(cell, ()) if one.shift] for cell in comparison.told}
    runs = {cell: shifts for cell, shifts in runs.items() if shifts}
    first = next((shifts[0] for shifts in runs.values()), None)
    if first is None:
        return None
    kinds = ["mean", *first["kinds"]]
    columns = min(3, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = new_figure(0.3 + 2.2 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(kinds) :]:
        axes.set_visible(False)
    for at, (axes, kind) in enumerate(zip(panels.flat, kinds, strict=False)):
        axes.set_title(kind.replace("_", " ") if at else "mean over kinds", weight="normal" if at else "bold")
        for cell, shifts in runs.items():
            lines = [dict(zip([0, *one["strengths"]], by_kind(one)[kind], strict=True)) for one in shifts]
            strengths, mean, low, high = band(lines)
            axes.plot(strengths, mean, marker="o", ms=3, color=look.colour(cell), ls=look.style(cell), lw=1.6)
            axes.fill_between(strengths, low, high, color=look.colour(cell), alpha=0.13, lw=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.tick_params(labelbottom=at >= len(kinds) - columns)
    handles = [Line2D([], [], color=look.colour(c), ls=look.style(c), label=comparison.grid.label(c)) for c in runs]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 8), labelcolor="linecolor")
    figure.supxlabel("strength; 0 is undamaged data", size=9, color=INK)
    figure.supylabel(first["metric"], size=9, color=INK)
    return figure


def _bare(axes: Axes) -> None:
    """Rows need no lines across, and values fine ones upright."""
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=RULE, lw=0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
