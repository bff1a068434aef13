"""Turns measurements into rows, and rows into tables, a figure and files."""

import itertools
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from rich import filesize
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy.stats import iqr

from ...config.errors import require
from ...runs import git_state, versions
from ...utils import cpu_count, replace, write_json
from .timing import Timing

Row = dict[str, Any]
KEYS = ("group", "step", "norm", "how")  # that say what a row measures
REFERENCE = "ln"  # the norm that others are compared with, where it takes part; else the first
PACKAGES = ("triton", "liger-kernel")  # packages whose version matters
WIDTH = 140  # characters of a line, where no terminal has its own
PLAIN: Any = {"box": None, "padding": (0, 1), "pad_edge": False, "title_justify": "left", "title_style": "bold"}
seconds_text = EngFormatter("s", places=2)


class Benchmark:
    """A set of measurements and what its report needs. Subclasses set the attributes and measure.

    Args:
        options: those of the command line, kept with the results.
    """

    name: str  # of its folder
    title: str
    rate: str  # the key of the column that stands beside a time
    total: int  # numbers to measure
    notes: Sequence[str]  # printed below the tables

    def __init__(self, options: Mapping[str, Any], device: torch.device) -> None:
        self.options, self.device = options, device
        self.timings: list[Timing] = []
        self.skipped: dict[str, str] = {}
        self.advance: Callable[[float], object] = lambda share: None

    def measure(self) -> None:
        """Fills `timings` and `skipped`, and calls `advance` with the share of a number that is done."""
        raise NotImplementedError

    def rows(self) -> list[Row]:
        """Returns a row for each timing, with `rate`."""
        raise NotImplementedError


def common_rows(timings: Sequence[Timing], how: str | None = None) -> list[Row]:
    """Returns a row for each timing, with its ratio to the reference computed as `how`, or as the timing itself."""
    timings = [one for one in timings if one.seconds]
    names = [one.norm for one in timings if one.norm]
    reference = REFERENCE if REFERENCE in names else next(iter(names), "")
    medians = {(one.group, one.step, one.norm, one.how): median(one.seconds) for one in timings}
    rows = []
    for one in timings:
        seconds = median(one.seconds)
        base = medians.get((one.group, one.step, reference, how or one.how)) if one.norm else None
        row: Row = {key: getattr(one, key) for key in KEYS}
        row |= {"seconds": seconds, "iqr": float(iqr(one.seconds)), "rounds": len(one.seconds)}
        row |= {"launch_seconds": median(one.launching) if one.launching else None}
        row |= {"saved_bytes": one.saved, "peak_bytes": one.peak}
        row |= {"ratio": seconds / base if base else None, "ratio_to": reference if base else None}
        rows.append(row)
    return rows


def report(benchmark: Benchmark, folder: Path, machine: Mapping[str, Any], finished: bool) -> None:
    """Prints tables and notes, and writes `table.txt`, `results.json` and `plot.png`.

    Raises:
        UsageError: nothing could be measured.
    """
    rows = benchmark.rows()
    skipped = [f"{name}: {why}" for name, why in benchmark.skipped.items()]
    if not rows:
        folder.rmdir()
        require(not finished, f"nothing could be measured: {'; '.join(skipped)}")
        return
    notes = [] if finished else ["stopped on the way: this is what was measured until then"]
    notes += ["time: median ± half the distance of the quartiles in percent of it", *benchmark.notes]
    notes += [f"skipped: {one}" for one in skipped]
    console = Console(highlight=False, record=True)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    for table in tables(rows, benchmark.title, benchmark.rate):
        console.print(table, "")
    for note in notes:
        console.print(Text(note), soft_wrap=True)
    console.save_text(str(folder / "table.txt"))
    settings = {**benchmark.options, "device": str(benchmark.device)}
    content = {"benchmark": benchmark.name, "finished": finished, **machine, "settings": settings}
    write_json(folder / "results.json", {**content, "rows": rows, "skipped": benchmark.skipped})
    plot(rows, benchmark.rate, f"{benchmark.title} on {machine['device']}", folder / "plot.png")
    console.print(Text(f"written to {folder}"), soft_wrap=True)


def conditions(device: torch.device) -> dict[str, Any]:
    """Returns machine, versions and commit. A load above 0 says that other programs ran at the beginning."""
    cpu, threads = platform.processor() or platform.machine(), torch.get_num_threads()
    if (file := Path("/proc/cpuinfo")).exists():
        models = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpu}, threads={threads}",
        "cpus": cpu_count(),
        "threads": threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions() | {one.name: one.version for one in distributions() if one.name in PACKAGES},
        "git": git_state(),
    }


def tables(rows: Sequence[Row], title: str, rate: str) -> list[Table]:
    """Returns a table for each group of rows, in which the steps stand side by side."""
    steps = list(dict.fromkeys(row["step"] for row in rows))
    memory = [key for key in ("saved_bytes", "peak_bytes") if any(row[key] is not None for row in rows)]
    reference = next((row["ratio_to"] for row in rows if row["ratio_to"]), "")
    rate_name = "% copy" if rate == "percent_of_copy" else rate.replace("_per_second", "/s")
    names = [name for step in steps for name in (step, rate_name, f"x {reference}")]
    names += [key.removesuffix("_bytes") for key in memory]
    made: dict[str, Table] = {}
    lines: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((row["group"], row["norm"], row["how"]), {})[row["step"]] = row
    for (group, norm, how), found in lines.items():
        if group not in made:
            made[group] = Table("norm", "as", title=f"{group} {title}".strip(), **PLAIN)
            for name in names:
                made[group].add_column(name, justify="right", no_wrap=True)
        cells = [cell for step in steps for cell in _cells(found.get(step), rate)]
        some = next(iter(found.values()))
        cells += [_memory(some[key], some.get("x_bytes")) for key in memory]
        made[group].add_row(norm, how, *cells, style="bold" if how == "ours" else "")
    return list(made.values())


def _cells(row: Row | None, rate: str) -> list[str]:
    """Returns time, rate and ratio; a star marks a time that the host needs longer to launch."""
    if row is None:
        return ["", "", ""]
    star = "*" if (row["launch_seconds"] or 0) > row["seconds"] else ""
    time = f"{seconds_text(row['seconds'])} ± {50 * row['iqr'] / row['seconds']:.0f}%{star}"
    value, ratio = row[rate], row["ratio"]
    decimals = 0 if value is None or value >= 100 or rate == "percent_of_copy" else 1
    return [time, "" if value is None else f"{value:,.{decimals}f}", "" if ratio is None else f"{ratio:.3f}"]


def _memory(size: int | None, x_bytes: int | None) -> str:
    """Returns a size, in sizes of x where there is one."""
    if size is None:
        return ""
    return f"{size / x_bytes:.2f} x" if x_bytes else filesize.decimal(size)


def plot(rows: Sequence[Row], rate: str, title: str, path: Path) -> None:
    """Draws a panel for each group and step, in it a row for each norm, and a dot for each way to compute it."""
    rows = [row for row in rows if row["norm"] and row[rate] is not None]
    if not rows:  # stopped before there was a copy to compare with
        return
    groups, steps, norms, hows = (list(dict.fromkeys(row[key] for row in rows)) for key in KEYS)
    size = 2 + 3.4 * len(steps), 1.4 + (0.8 + 0.3 * len(norms)) * len(groups)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(len(groups), len(steps), sharex="col", sharey=True, squeeze=False)
    for (group, step), panel in zip(itertools.product(groups, steps), panels.flat, strict=True):
        for how in hows:
            dots = [row for row in rows if (row["group"], row["step"], row["how"]) == (group, step, how)]
            panel.scatter([row[rate] for row in dots], [norms.index(row["norm"]) for row in dots], s=30, label=how)
        panel.set_title(f"{group} {step}".strip(), loc="left", fontsize=10)
        panel.set_yticks(range(len(norms)), norms)
        panel.set_ylim(len(norms) - 0.5, -0.5)
        panel.set_xlim(left=0)
        panel.grid(alpha=0.4)
    figure.suptitle(f"{title}: {rate.replace('_', ' ')}")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(hows))
    replace(path, lambda file: figure.savefig(file, format="png"))
