"""Figures of swept numbers: a line over one, heat maps over two."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .comparison import Comparison
from .figures import Look
from .grid import Cell, is_geometric, numbers, short
from .sentences import decimals, number
from .style import INK, label_ends, new_figure


def sweep(comparison: Comparison, look: Look) -> Figure | None:
    """The metric over the numeric keys; None where none or more than two are swept."""
    keys = comparison.grid.numeric
    if len(keys) == 1:
        return _line(comparison, look, keys[0])
    return _heat_maps(comparison, *keys) if len(keys) == 2 else None


def _series(comparison: Comparison, keys: Sequence[str]) -> dict[Cell, list[Cell]]:
    """Cells by what else than `keys` is swept."""
    series: dict[Cell, list[Cell]] = {}
    for cell in comparison.cells:
        if comparison.spread(cell) is not None:
            series.setdefault(tuple(pair for pair in cell if pair[0] not in keys), []).append(cell)
    return series


def _line(comparison: Comparison, look: Look, key: str) -> Figure | None:
    """Mean and standard deviation over the values of `key`; what does not have the key is the same everywhere."""
    places = numbers(comparison.grid, key)
    figure = new_figure(3.3, 6.4)
    axes = figure.add_subplot(xlabel=key, ylabel=comparison.metric)
    if is_geometric(places):
        axes.set_xscale("log")
    ends = []
    for rest, cells in _series(comparison, [key]).items():
        points = {float(dict(cell)[key]): cell for cell in cells if key in dict(cell)}
        at = sorted(points) or [places[0], places[-1]]
        spreads = [comparison.spread(points.get(x, cells[0])) for x in at]
        mean = np.array([one.mean for one in spreads if one is not None])
        std = np.array([one.std or 0.0 for one in spreads if one is not None])
        colour = look.colour(cells[0]) if look.key != key else INK
        marks = "o" if points else ""
        axes.plot(at, mean, marker=marks, ms=5, color=colour, ls=look.style(cells[0]) if look.key != key else "-")
        axes.fill_between(at, mean - std, mean + std, color=colour, alpha=0.13, lw=0)
        if rest:
            ends.append((float(mean[-1]), comparison.grid.label(rest), colour))
    axes.set_xticks(places, [f"{x:g}" for x in places])
    axes.xaxis.set_minor_locator(NullLocator())
    label_ends(axes, ends, 2.6)
    return figure


def _heat_maps(comparison: Comparison, down: str, across: str) -> Figure | None:
    """A map for each of what else is swept, all on one scale; every field says its value."""
    rows, columns = numbers(comparison.grid, down), numbers(comparison.grid, across)
    maps = {}
    for rest, cells in _series(comparison, [down, across]).items():
        values = np.full((len(rows), len(columns)), np.nan)
        for cell in cells:
            place = dict(cell)
            one = comparison.spread(cell)
            if down in place and across in place and one is not None:
                values[rows.index(float(place[down])), columns.index(float(place[across]))] = one.mean
        if not np.isnan(values).all():
            maps[rest] = values
    if not maps:
        return None
    everything = np.concatenate([values.ravel() for values in maps.values()])
    low, high = float(np.nanmin(everything)), float(np.nanmax(everything))
    precision = decimals([comparison.spread(cell) for cell in comparison.cells])
    across_page = min(3, len(maps))
    lines = -(-len(maps) // across_page)
    width = 1.2 + across_page * max(1.6, 0.72 * len(columns))
    figure = new_figure(lines * (0.9 + 0.42 * len(rows)), width)
    panels = figure.subplots(lines, across_page, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(maps) :]:
        axes.set_visible(False)
    for axes, (rest, values) in zip(panels.flat, maps.items(), strict=False):
        _heat_map(axes, values, low, high, precision, comparison.higher_is_better)
        axes.set_title(comparison.grid.label(rest) if rest else comparison.metric)
        axes.set_xticks(np.arange(len(columns)) + 0.5, [f"{x:g}" for x in columns])
        axes.set_yticks(np.arange(len(rows)) + 0.5, [f"{y:g}" for y in rows])
    figure.supxlabel(short(across), size=9, color=INK)
    figure.supylabel(short(down), size=9, color=INK)
    return figure


def _heat_map(axes: Axes, values: np.ndarray, low: float, high: float, precision: int, higher_is_better: bool) -> None:
    """Brighter is better; what did not finish is left empty, and the best of the map is bold."""
    scale = matplotlib.colormaps["viridis" if higher_is_better else "viridis_r"]
    axes.pcolormesh(values, cmap=scale, vmin=low, vmax=high, edgecolors="none")
    best = np.nanmax(values) if higher_is_better else np.nanmin(values)
    for row, column in zip(*np.nonzero(~np.isnan(values)), strict=True):
        value = values[row, column]
        red, green, blue, _ = scale((value - low) / (high - low) if high > low else 0.5)
        colour = "#ffffff" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.52 else "#000000"
        weight = "bold" if value == best else "normal"
        place = (column + 0.5, row + 0.5)
        axes.text(*place, number(value, precision), ha="center", va="center", size=8, color=colour, weight=weight)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
