"""How figures look: a colour for each norm, labels beside what they name, and SVG that is readable by day and night.

Figures are made without pyplot: no display, no global state.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...utils import replace

# By name: on a light page, and on a dark one. The colours are those of Okabe and Ito, which the colour-blind can tell.
COLOURS = {
    "ink": ("#24292f", "#d7dce2"),
    "faint": ("#6e7780", "#98a1ab"),
    "rule": ("#d3d8dd", "#3a4149"),
    "blue": ("#0072b2", "#56b4e9"),
    "vermilion": ("#d55e00", "#ff8f3f"),
    "green": ("#009e73", "#2fcf9f"),
    "purple": ("#b5508f", "#e59cc8"),
    "amber": ("#b78103", "#f0c04a"),
    "violet": ("#6a51c7", "#a999f5"),
    "brown": ("#8c4a2f", "#d39a7c"),
    "grey": ("#50585f", "#b4bcc4"),
}
NORMS = {"dyt": "blue", "derf": "vermilion", "ln": "grey", "rmsnorm": "green", "bn": "purple", "none": "amber"}
OTHERS = ("blue", "vermilion", "green", "purple", "amber", "violet", "brown", "grey")
INK, FAINT, RULE = (COLOURS[name][0] for name in ("ink", "faint", "rule"))
WIDTH = 9.2  # inches of a whole figure
SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a $ is a $, as in ${optim.lr}
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def colours(names: Sequence[str], ordered: bool = False) -> dict[str, str]:
    """A colour for each of `names`: a norm's own, else the next that is free; along a scale if they are `ordered`."""
    if ordered:
        scale = matplotlib.colormaps["viridis"](np.linspace(0.25, 0.8, len(names)))
        return {name: matplotlib.colors.to_hex(colour) for name, colour in zip(names, scale, strict=True)}
    chosen = {name: NORMS[name] for name in names if name in NORMS}
    free = [colour for colour in OTHERS if colour not in chosen.values()] or list(OTHERS)
    others = [name for name in names if name not in NORMS]
    chosen |= {name: free[at % len(free)] for at, name in enumerate(others)}
    return {name: COLOURS[chosen[name]][0] for name in names}


def new_figure(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], height: float, size: float = 8.5) -> None:
    """Writes labels beside the ends (y, label, colour) of lines, moved apart where they would overlap.

    Args:
        height: of the axes, in inches.
    """
    low, high = axes.get_ylim()
    to_share = axes.transScale.transform  # a log axis is even in its logarithms
    bottom, top = (float(to_share((1.0, y))[1]) for y in (low, high))
    shares = [(float(to_share((1.0, y))[1]) - bottom) / (top - bottom) for y, _, _ in ends]
    gap = 1.35 * size / 72 / height
    placed = spaced([min(1.0, max(0.0, share)) for share in shares], gap)
    for (_, text, colour), share in zip(ends, placed, strict=True):
        axes.annotate(
            text,
            (1.0, share),
            (5, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            va="center",
            size=size,
            annotation_clip=False,
        )


def spaced(values: Sequence[float], gap: float) -> list[float]:
    """`values`, moved as little as it takes to be `gap` apart, in the order that they have."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    groups: list[list[int]] = []
    places: list[float] = []  # of the middle of each group
    for at in order:
        groups.append([at])
        places.append(values[at])
        while len(groups) > 1 and places[-1] - places[-2] < gap * (len(groups[-1]) + len(groups[-2])) / 2:
            merged = groups.pop(-2) + groups.pop()
            groups.append(merged)
            places[-2:] = [sum(values[one] for one in merged) / len(merged)]
    result = [0.0] * len(values)
    for group, place in zip(groups, places, strict=True):
        for number, at in enumerate(group):
            result[at] = place + gap * (number - (len(group) - 1) / 2)
    return result


def write_png(figure: Figure, path: Path) -> None:
    with matplotlib.rc_context(SETTINGS):
        replace(path, lambda file: figure.savefig(file, format="png", dpi=160, facecolor="white"))


def to_svg(figure: Figure, name: str) -> str:
    """`figure` as an SVG element whose colours are the page's: `var(--ink)` and so on. Equal figures, equal text."""
    buffer = io.StringIO()
    with matplotlib.rc_context(SETTINGS | {"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, (light, _) in COLOURS.items():
        text = re.sub(light, f"var(--{colour})", text, flags=re.IGNORECASE)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    share = f"{100 * figure.get_figwidth() / WIDTH:.0f}%"  # so that text is of one size in all figures
    return re.sub(r'width="[^"]*" height="[^"]*"|height="[^"]*" width="[^"]*"', f'width="{share}"', text, count=1)


def page_colours(dark: bool) -> str:
    """The colours as declarations of CSS."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLOURS.items())
