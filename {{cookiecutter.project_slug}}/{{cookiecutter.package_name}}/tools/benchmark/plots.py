"""Pictures of a benchmark's rows. Figures are made without pyplot: no display, no global state."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...utils import replace
from .tables import Row, duration, shape_of

COLOURS = {  # Okabe and Ito's, which most eyes tell apart
    "formula": "#999999",
    "compiled": "#E69F00",
    "ours": "#0072B2",
    "ours compiled": "#56B4E9",
    "plain": "#F0E442",
    "triton compiled": "#000000",
    "torch": "#009E73",
    "liger": "#CC79A7",
    "eager": "#56B4E9",
}
GREY = "#555555"


def plot_norms(rows: Sequence[Row], title: str, path: Path) -> None:
    """A panel for each pass, a line for each norm and shape, a dot for each way of computing it."""
    rows = [row for row in rows if row["norm"] and row["percent_of_copy"] is not None]
    if not rows:  # stopped before there was a copy to compare with
        return
    steps = list(dict.fromkeys(row["pass"] for row in rows))
    lines: list[tuple[tuple[int, int], str] | None] = []
    heads = {}
    for shape in dict.fromkeys(map(shape_of, rows)):
        heads[len(lines)] = f"{shape[0]:,} x {shape[1]:,}"
        lines += [None, *((shape, norm) for norm in dict.fromkeys(r["norm"] for r in rows if shape_of(r) == shape))]
    figure = Figure(figsize=(2.2 + 3.4 * len(steps), 1.9 + 0.34 * len(lines)), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(steps), sharey=True, sharex=True, squeeze=False)[0]
    widest = max(100.0, *(row["percent_of_copy"] for row in rows))
    for panel, step in zip(panels, steps, strict=True):
        _prepare(panel, step)
        panel.set_xlim(0, 1.12 * widest)
        panel.axvline(100, color=GREY, linewidth=1, linestyle=":")
        panel.set_xlabel("% of what a copy reaches")
        for y, line in enumerate(lines):
            if line is None:
                panel.text(0.01 * widest, y, heads[y], color=GREY, fontsize=9, fontweight="bold", va="center")
                continue
            here = [row for row in rows if (shape_of(row), row["norm"], row["pass"]) == (*line, step)]
            panel.axhline(y, color="#e6e6e6", linewidth=0.8, zorder=0)
            for row in here:
                ours = row["how"] == "ours"
                colour = COLOURS.get(row["how"], "#000000")
                panel.scatter(row["percent_of_copy"], y, s=52 if ours else 30, color=colour, zorder=3 if ours else 2)
                if ours:
                    x, label = row["percent_of_copy"], f"{row['percent_of_copy']:.0f}"
                    panel.text(x, y - 0.22, label, color=colour, fontsize=8, ha="center", va="bottom")
    panels[0].set_yticks([y for y, line in enumerate(lines) if line], [line[1] for line in lines if line])
    panels[0].set_ylim(len(lines) - 0.4, -0.6)
    _finish(figure, title, list(dict.fromkeys(row["how"] for row in rows)), path)


def plot_models(rows: Sequence[Row], title: str, path: Path) -> None:
    """A panel for each step, a bar for each norm, eager and compiled, with its time and its ratio to the reference."""
    steps = list(dict.fromkeys(row["step"] for row in rows))
    hows = list(dict.fromkeys(row["how"] for row in rows))
    norms = list(dict.fromkeys(row["norm"] for row in rows))
    size = 1.5 + 4.6 * len(steps), 1.9 + 0.34 * len(norms) * len(hows)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
    thick = 0.84 / len(hows)
    for panel, step in zip(panels, steps, strict=True):
        here = [row for row in rows if row["step"] == step]
        _prepare(panel, step)
        longest = max(row["seconds"] for row in here)
        panel.set_xlim(0, 1.42 * longest)
        panel.set_xticks([])
        panel.spines["bottom"].set_visible(False)
        for row in here:
            y = norms.index(row["norm"]) + (hows.index(row["how"]) - (len(hows) - 1) / 2) * thick
            panel.barh(y, row["seconds"], height=0.9 * thick, color=COLOURS[row["how"]])
            compared = f"   {row['ratio']:.2f} x {row['ratio_to']}" if row["ratio"] is not None else ""
            label = f"{duration(row['seconds'])}{compared}"
            panel.text(row["seconds"] + 0.02 * longest, y, label, fontsize=9, va="center", color=GREY)
    panels[0].set_yticks(range(len(norms)), norms)
    panels[0].invert_yaxis()
    _finish(figure, title, hows, path)


def _prepare(panel: Axes, title: str) -> None:
    panel.set_title(title, loc="left", fontsize=11)
    panel.tick_params(length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


def _finish(figure: Figure, title: str, names: Sequence[str], path: Path) -> None:
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    handles = [figure.axes[0].scatter([], [], s=52, color=COLOURS.get(name, "#000000")) for name in names]
    legend = figure.legend(handles, names, loc="outside lower left", ncols=len(names), frameon=False, handletextpad=0.1)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_color(COLOURS.get(name, "#000000"))
    replace(path, lambda file: figure.savefig(file, format="png"))
