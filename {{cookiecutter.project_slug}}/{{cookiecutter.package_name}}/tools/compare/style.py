"""Sets how figures look: one colour for each norm, and SVG that takes its colours from the page, light or dark."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ...utils import replace

# On a light page and on a dark one. After Okabe and Ito, so that colour-blind people can tell them apart.
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
INK, FAINT, RULE, *LINES = (light for light, _ in COLOURS.values())
NORMS = {"ln": LINES[-1], **dict(zip(("dyt", "derf", "rmsnorm", "bn", "none"), LINES, strict=False))}
WIDTH = 9.2  # inches of a figure as wide as the page
STYLE: Any = {  # matplotlib types its keys one by one
    "svg.fonttype": "none",  # text stays text
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.parse_math": False,  # a $ is a $, as in ${optim.lr}
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.labelcolor": "linecolor",
    "figure.constrained_layout.use": True,
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("text.color", "axes.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), RULE),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), FAINT),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 8.5),
}


def colours(names: Sequence[str]) -> dict[str, str]:
    """Returns a colour for each of `names`: a norm's own or the next free one."""
    own = {name: NORMS[name] for name in names if name in NORMS}
    free = [colour for colour in LINES if colour not in own.values()] or LINES
    others = [name for name in names if name not in own]
    return own | {name: free[index % len(free)] for index, name in enumerate(others)}


def write_png(figure: Figure, path: Path) -> None:
    with matplotlib.rc_context(STYLE):
        replace(path, lambda file: figure.savefig(file, format="png", dpi=160, facecolor="white"))


def to_svg(figure: Figure, name: str) -> str:
    """Returns an SVG element whose colours are CSS variables; `name` makes its ids unique on the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, (light, _) in COLOURS.items():
        text = re.sub(light, f"var(--{colour})", text, flags=re.IGNORECASE)
    width = f'width="{100 * figure.get_figwidth() / WIDTH:.0f}%"'  # so that text has one size in all figures
    return re.sub(r'width="[^"]*" height="[^"]*"|height="[^"]*" width="[^"]*"', width, text, count=1)


def css_colours(dark: bool) -> str:
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLOURS.items())
