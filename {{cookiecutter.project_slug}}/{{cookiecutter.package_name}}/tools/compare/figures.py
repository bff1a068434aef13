"""Draws a comparison: scores and differences, sweeps, robustness, curves, and alpha over depth."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from ..robustness.evaluate import curves as shift_curves
from .grid import Cell, short, short_tag
from .results import Comparison, band, thin
from .style import FAINT, INK, STYLE, WIDTH, colours

DASHES: list[Any] = ["-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2))]
OVER_SEEDS = "Mean over seeds, shaded from the least to the greatest."
CAPTIONS = {
    "scores": "Dots are runs, the upright stroke is their mean, the line one standard deviation to either side. Right:"
    " mean difference by seed with its 95 % interval.",
    "sweep": f"{OVER_SEEDS} Heat maps: brighter is better, the best of each map is bold.",
    "shift": OVER_SEEDS,
    "curves": f"{OVER_SEEDS} train/loss is averaged over stretches of steps.",
    "alpha": f"Layers from the input downwards. {OVER_SEEDS}",
}

Styles = Mapping[Cell, Mapping[str, Any]]  # colour and dashes of each cell's lines


def draw(comparison: Comparison) -> dict[str, Figure]:
    """Returns the figures that the finished runs have data for, by name."""
    if not any(comparison.values(cell) for cell in comparison.grid.cells):
        return {}
    drawings = draw_scores, draw_sweep, draw_shift, draw_curves, draw_alpha
    with rc_context(STYLE):
        figures = [drawing(comparison, line_styles(comparison)) for drawing in drawings]
    return {name: figure for name, figure in zip(CAPTIONS, figures, strict=True) if figure is not None}


def line_styles(comparison: Comparison) -> Styles:
    """Returns a colour by the main key and dashes by the other keys."""
    grid, key = comparison.grid, comparison.main_key
    names = grid.swept.get(key, [grid.label(())])
    colour = colours(names)
    rests = {cell: tuple(pair for pair in cell if pair[0] != key) for cell in grid.cells}
    dashes = {rest: DASHES[index % len(DASHES)] for index, rest in enumerate(dict.fromkeys(rests.values()))}
    color = {cell: colour.get(dict(cell).get(key, names[0]), FAINT) for cell in grid.cells}
    return {cell: {"color": color[cell], "linestyle": dashes[rest]} for cell, rest in rests.items()}


def draw_scores(comparison: Comparison, styles: Styles) -> Figure:
    """Draws a row for each cell: its runs and their mean, and beside it the difference to the baseline."""
    grid, metric = comparison.grid, comparison.metric
    cells = [cell for cell in grid.cells if comparison.values(cell)]
    references = {cell: comparison.reference(cell) for cell in cells}
    compared = [cell for cell in cells if references[cell] not in (None, cell)]
    figure = Figure(figsize=(WIDTH if compared else 0.62 * WIDTH, 1.0 + 0.36 * len(cells)))
    scores, *differences = figure.subplots(1, 2 if compared else 1, sharey=True, squeeze=False)[0]
    scores.set_title(f"{metric}, {'higher' if comparison.higher_is_better else 'lower'} is better")
    for row, cell in enumerate(cells):
        values, color = list(comparison.values(cell).values()), styles[cell]["color"]
        mean, std = np.mean(values), np.std(values, ddof=1) if len(values) > 1 else 0.0
        scores.plot([mean - std, mean + std], [row, row], color=color, lw=2, alpha=0.45)
        scores.plot(values, [row] * len(values), "o", ms=4.5, color=color, mec="none", alpha=0.55)
        scores.plot(mean, row, "|", ms=13, mew=2.4, color=color)
        difference = comparison.difference(cell, references[cell]) if cell in compared else None
        if difference is not None:
            ends = difference.interval or (difference.mean, difference.mean)
            differences[0].plot(ends, [row, row], color=color, lw=2.2, solid_capstyle="butt")
            differences[0].plot(difference.mean, row, "o", ms=7, color=color, mec="none")
    for axes in differences:
        baseline = grid.label(tuple([comparison.baseline] if comparison.baseline else []))
        axes.set_title(f"difference to {baseline} by seed, 95 % interval")
        axes.axvline(0, color=FAINT, lw=1)
        axes.margins(x=0.08)
    for axes in (scores, *differences):
        _rows(axes, [grid.label(cell) for cell in cells])
    return figure


def draw_curves(comparison: Comparison, styles: Styles) -> Figure | None:
    """Draws training loss, validation loss and the validated metric over steps."""
    panels: dict[str, dict[Cell, np.ndarray]] = {}
    for tag in dict.fromkeys(["train/loss", "val/loss", f"val/{short_tag(comparison.metric)}"]):
        for cell in comparison.shown:
            runs = [thin(one.curves[tag]) for one in comparison.results.get(cell, ()) if tag in one.curves]
            if (values := band(runs)).size:
                panels.setdefault(tag, {})[cell] = values
    if not panels:
        return None
    figure = Figure(figsize=(WIDTH, 3.0))
    for axes, (tag, bands) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for cell, values in bands.items():
            _plot_band(axes, values, styles[cell], marker="o" if values.shape[1] == 1 else "")
        axes.set_title(tag)
        axes.set_xlabel("optimiser step")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        if min(values.shape[1] for values in bands.values()) >= 12:  # the first values would flatten the rest
            tails = np.concatenate([values[2:, values.shape[1] // 6 :].ravel() for values in bands.values()])
            margin = 0.05 * np.ptp(tails) or 0.05
            axes.set_ylim(tails.min() - margin, tails.max() + margin)
    _legend(figure, comparison, styles, sorted(bands, key=lambda cell: bands[cell][1, -1], reverse=True))
    return figure


def draw_alpha(comparison: Comparison, styles: Styles) -> Figure | None:
    """Draws the last alpha of every layer, over depth."""
    runs = {cell: [one.alphas for one in comparison.results.get(cell, ()) if one.alphas] for cell in comparison.shown}
    runs = {cell: alphas for cell, alphas in runs.items() if alphas}
    layers = max((list(alphas[0]) for alphas in runs.values()), key=len, default=[])
    if not layers:
        return None
    figure = Figure(figsize=(0.8 * WIDTH, 1.2 + min(0.2 * len(layers), 8.0)))
    axes = figure.add_subplot(xlabel="alpha at the end of training")
    for cell, alphas in runs.items():
        values = np.array([list(one.values()) for one in alphas])
        rows = range(values.shape[1])
        axes.plot(values.mean(axis=0), rows, marker="o", ms=4, mec="none", **styles[cell])
        axes.fill_betweenx(rows, values.min(axis=0), values.max(axis=0), color=styles[cell]["color"], alpha=0.13, lw=0)
    _rows(axes, [re.sub(r"^\d+_", "", layer) for layer in layers])
    _legend(figure, comparison, styles, list(runs))
    return figure


def draw_shift(comparison: Comparison, styles: Styles) -> Figure | None:
    """Draws the metric against the strength of each kind of shift, and its mean over the kinds."""
    runs = {cell: [one.shift for one in comparison.results.get(cell, ()) if one.shift] for cell in comparison.shown}
    runs = {cell: shifts for cell, shifts in runs.items() if shifts}
    first = next((shifts[0] for shifts in runs.values()), None)
    if first is None:
        return None
    kinds = ["mean", *first["kinds"]]
    figure, panels = _panels(len(kinds), lambda down, _: (WIDTH, 0.3 + 2.2 * down))
    for axes, kind in zip(panels, kinds, strict=True):
        mean = kind == "mean"
        axes.set_title("mean over kinds" if mean else kind.replace("_", " "), weight="bold" if mean else "normal")
        for cell, shifts in runs.items():
            lines = [dict(zip([0, *one["strengths"]], shift_curves(one)[kind], strict=True)) for one in shifts]
            _plot_band(axes, band(lines), styles[cell], marker="o", ms=3)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.supxlabel("strength; 0 is undamaged data", size=9, color=INK)
    figure.supylabel(first["metric"], size=9, color=INK)
    _legend(figure, comparison, styles, list(runs))
    return figure


def draw_sweep(comparison: Comparison, styles: Styles) -> Figure | None:
    """Draws the metric over one swept number, or a heat map over two; returns None for none or more."""
    keys = comparison.grid.numeric
    series: dict[Cell, list[Cell]] = {}  # cells by their values of the other keys
    for cell in comparison.grid.cells:
        if comparison.values(cell):
            series.setdefault(tuple(pair for pair in cell if pair[0] not in keys), []).append(cell)
    if len(keys) == 1:
        return _lines(comparison, styles, keys[0], series)
    return _heat_maps(comparison, keys[0], keys[1], series) if len(keys) == 2 else None


def _lines(comparison: Comparison, styles: Styles, key: str, series: Mapping[Cell, Sequence[Cell]]) -> Figure:
    """Draws lines over the values of `key`; a series without this key is the same everywhere."""
    ticks = _sorted_values(comparison, key)
    figure = Figure(figsize=(0.8 * WIDTH, 3.3))
    axes = figure.add_subplot(xlabel=key, ylabel=comparison.metric)
    axes.set_xscale("log" if ticks[0] > 0 and ticks[-1] >= 4 * ticks[0] else "linear")
    drawn: dict[Cell, Mapping[str, Any]] = {}
    for rest, cells in series.items():
        points = sorted((float(dict(cell)[key]), cell) for cell in cells if key in dict(cell))
        marker = "o" if points else ""
        points = points or [(x, cells[0]) for x in (ticks[0], ticks[-1])]
        runs = [(x, list(comparison.values(cell).values())) for x, cell in points]
        values = np.array([(x, np.mean(run), min(run), max(run)) for x, run in runs]).T
        drawn[rest] = styles[cells[0]] if comparison.main_key != key else {"color": INK}
        _plot_band(axes, values, drawn[rest], marker=marker)
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    if any(series):
        _legend(figure, comparison, drawn, list(drawn))
    return figure


def _heat_maps(comparison: Comparison, down: str, across: str, series: Mapping[Cell, Sequence[Cell]]) -> Figure | None:
    """Draws a map for every series that has both keys, all on one scale."""
    rows, columns = _sorted_values(comparison, down), _sorted_values(comparison, across)
    maps = {}
    for rest, cells in series.items():
        typed = {cell: dict(cell) for cell in cells if {down, across} <= dict(cell).keys()}
        if typed:
            maps[rest] = np.full((len(rows), len(columns)), np.nan)
        for cell, at in typed.items():
            mean = np.mean(list(comparison.values(cell).values()))
            maps[rest][rows.index(float(at[down])), columns.index(float(at[across]))] = mean
    if not maps:
        return None
    limits = Normalize(min(map(np.nanmin, maps.values())), max(map(np.nanmax, maps.values())))
    scale = ScalarMappable(limits, "viridis" if comparison.higher_is_better else "viridis_r")
    width, height = max(1.6, 0.72 * len(columns)), 0.9 + 0.42 * len(rows)
    figure, panels = _panels(len(maps), lambda m, n: (1.2 + n * width, m * height))
    for axes, (rest, values) in zip(panels, maps.items(), strict=True):
        axes.pcolormesh(values, cmap=scale.cmap, norm=limits)
        best = np.nanmax(values) if comparison.higher_is_better else np.nanmin(values)
        for row, column in np.argwhere(~np.isnan(values)):
            value = values[row, column]
            bright = np.dot(scale.to_rgba(value)[:3], (0.3, 0.59, 0.11)) > 0.52
            style: dict[str, Any] = {"weight": "bold" if value == best else "normal", "ha": "center", "va": "center"}
            shown = f"{value:z.{comparison.digits}f}"
            axes.text(column + 0.5, row + 0.5, shown, size=8, color="black" if bright else "white", **style)
        axes.set_title(comparison.grid.label(rest) if rest else comparison.metric)
        axes.set_xticks(np.arange(len(columns)) + 0.5, [f"{x:g}" for x in columns])
        axes.set_yticks(np.arange(len(rows)) + 0.5, [f"{y:g}" for y in rows])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    figure.supxlabel(short(across), size=9, color=INK)
    figure.supylabel(short(down), size=9, color=INK)
    return figure


def _sorted_values(comparison: Comparison, key: str) -> list[float]:
    return sorted(float(value) for value in comparison.grid.swept[key])


def _panels(number: int, size: Callable[[int, int], tuple[float, float]]) -> tuple[Figure, Sequence[Axes]]:
    """Returns a figure with `number` panels in rows of three; `size(rows, columns)` is in inches."""
    across = min(3, number)
    down = -(-number // across)
    figure = Figure(figsize=size(down, across))
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    for axes in panels[number:]:
        axes.set_visible(False)
    for axes in panels[number - across : number]:
        axes.tick_params(labelbottom=True)
    return figure, list(panels[:number])


def _plot_band(axes: Axes, values: np.ndarray, style: Mapping[str, Any], **marks: Any) -> None:
    x, mean, low, high = values
    axes.plot(x, mean, **style, **marks)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.13, lw=0)


def _legend(figure: Figure, comparison: Comparison, styles: Styles, cells: Sequence[Cell]) -> None:
    handles = [Line2D([], [], **styles[cell], label=comparison.grid.label(cell)) for cell in cells]
    figure.legend(handles=handles, loc="outside right upper")


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names the rows 0, 1, ... from the top, as many as have room; fine upright lines, and no axis beside them."""
    every = -(-len(names) // 40)
    axes.set_yticks(range(0, len(names), every), names[::every])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
