"""Writes a comparison as sentences, a table and figures: report.html, which needs no other file, and report.md."""

import html
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from ...utils import cpu_count, write_text
from . import figures
from .grid import Cell
from .results import Comparison, Difference, Spread
from .style import css_colours, to_svg, write_png


@dataclass(frozen=True)
class Report:
    """A comparison with what else is to be said about it."""

    comparison: Comparison
    state: str  # how much of it is finished
    command: str
    failed: Mapping[str, str] = field(default_factory=dict)  # the last line of each failed run, by its name
    notes: Sequence[str] = ()
    details: Mapping[str, str] = field(default_factory=dict)  # how the runs were made, by topic

    @property
    def title(self) -> str:
        grid = self.comparison.grid
        seeds = len({one.seed for one in grid.combinations})
        swept = [f"{key} = {', '.join(grid.swept[key])}" for key in grid.keys]
        return "; ".join([*swept, f"{seeds} seeds" if seeds > 1 else "one seed"])

    def sentences(self) -> list[str]:
        """Returns one sentence for every shown cell."""
        return [self._sentence(cell) for cell in self.comparison.shown]

    def _sentence(self, cell: Cell) -> str:
        one, reference = self.comparison, self.comparison.shown_reference(cell)
        difference = one.difference(cell, reference)
        baseline = "" if reference is None else one.grid.label(reference)
        text = sentence(one.grid.label(cell), one.spread(cell), difference, baseline, one.higher_is_better, one.digits)
        diverged = len(one.results.get(cell, ())) - len(one.values(cell))
        return f"{text} {diverged} of its runs diverged: {one.metric} is no number there." if diverged else text

    def caveats(self) -> str:
        """Returns what limits these sentences."""
        one = self.comparison
        differences = [one.difference(cell, one.shown_reference(cell)) for cell in one.shown]
        seeds = [each.n for each in differences if each is not None and each.interval is not None]
        cells = len(one.grid.cells)
        texts = {
            "Intervals are of paired differences by seed (Student's t). They speak of other seeds of this recipe, not"
            " of other data, sizes or tuning.": bool(seeds),
            f"There are {len(seeds)} of them, and one in twenty misses the true difference by chance.": len(seeds) > 1,
            f"With {min(seeds, default=0)} seeds they are wide: within noise does not mean that there is no"
            " difference.": 0 < min(seeds, default=0) < 5,
            f"Of {cells} cells the best of each {one.main_key} is shown here. It was chosen by this very metric, which"
            " flatters it: measure it again with other seeds. The table has all cells.": len(one.shown) < cells,
        }
        return " ".join(text for text, applies in texts.items() if applies)

    def table(self) -> list[list[str]]:
        """Returns rows of text, the head first."""
        one = self.comparison
        units = {each.throughput[0] for results in one.results.values() for each in results if each.throughput}
        rate = f"{units.pop()}/s" if len(units) == 1 else "per second"
        head = ["", one.metric, "difference", "95 % interval", "seconds", rate, "peak memory", "parameters"]
        return [head, *(self._row(cell) for cell in one.grid.cells)]

    def _row(self, cell: Cell) -> list[str]:
        one, results = self.comparison, self.comparison.results.get(cell, ())
        spread, difference = one.spread(cell), one.difference(cell)
        mean = interval = ""
        if one.reference(cell) == cell:
            mean = "baseline"
        elif difference is not None:
            mean = f"{number(difference.mean, one.digits, '+')} (n={difference.n})"
            interval = shown_interval(difference, one.digits)
        return [
            *(one.grid.label(cell), shown_spread(spread, one.digits) if spread else "none", mean, interval),
            _mean([each.summary.get("seconds") for each in results]),
            _mean([each.throughput[1] if each.throughput else None for each in results]),
            _mean([each.summary.get("peak_memory_bytes") for each in results], 2**20, " MiB"),
            _mean([each.summary.get("parameters") for each in results]),
        ]


def sentence(
    label: str, one: Spread | None, difference: Difference | None, baseline: str, higher_is_better: bool, digits: int
) -> str:
    """Returns what the numbers say about a cell, and no more.

    `one` is None if no run has finished, `difference` is None without a common seed, and `baseline` is empty if there
    is none, or the cell's own label.
    """
    if one is None:
        return f"{label}: no run has finished."
    start = f"{label}: {shown_spread(one, digits)}"
    if baseline in ("", label):
        return f"{start}{', the baseline' if baseline else ''}."
    if difference is None:
        return f"{start}; not compared, because no seed has finished for both it and {baseline}."
    start += f", {number(difference.mean, digits, '+')} to {baseline}"
    if difference.n == 1:
        return f"{start}. One seed cannot tell a difference from chance."
    if difference.interval is None:
        return f"{start}, the same in each of {difference.n} seeds, so there is no spread to make an interval of."
    common = f" ({difference.n} seeds in common)" if difference.n != one.n else ""
    start += f", 95 % CI {shown_interval(difference, digits)}{common}"
    if not difference.excludes_zero:
        return f"{start}: within seed noise of {baseline}."
    verdict = "better" if (difference.mean > 0) == higher_is_better else "worse"
    return f"{start}, which excludes 0: {verdict} than {baseline}."


def number(value: float, digits: int, sign: str = "-") -> str:
    return f"{value:{sign}z.{digits}f}"


def shown_spread(one: Spread, digits: int) -> str:
    """Returns for example `0.986 ± 0.003 (n=3)`."""
    return f"{number(one.mean, digits)}{f' ± {number(one.std, digits)}' if one.std is not None else ''} (n={one.n})"


def shown_interval(difference: Difference, digits: int) -> str:
    return " to ".join(number(end, digits) for end in difference.interval or ())


def _mean(values: Sequence[float | None], scale: int = 1, unit: str = "") -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known) / scale:,.0f}{unit}" if known else ""


def origin(summaries: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Returns versions, git state and machine, and a note about each of them in which the runs differ."""
    import torch

    details, notes = {}, []
    for key in ("versions", "git"):
        facts = [", ".join(f"{name} {value}" for name, value in (one.get(key) or {}).items()) for one in summaries]
        found = [text or "none" for text in dict.fromkeys(facts)]
        details[key] = "; ".join(found)
        if len(found) > 1:
            notes.append(f"The runs differ in {key}: {details[key]}.")
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    gpu = f"{len(gpus)} x {gpus[0]}" if gpus else "no GPU"
    details["machine of this report"] = f"{platform.system()} {platform.machine()}, {cpu_count()} CPUs, {gpu}"
    return details, notes


def write_report(report: Report, folder: Path) -> None:
    """Writes `report.html`, `report.md` and the pictures that the latter shows."""
    drawn = figures.draw(report.comparison)
    (folder / "figures").mkdir(exist_ok=True)
    for name in figures.CAPTIONS:
        path = folder / "figures" / f"{name}.png"
        path.unlink(missing_ok=True)  # of an earlier comparison
        if name in drawn:
            write_png(drawn[name], path)
    svgs = {name: to_svg(figure, name) for name, figure in drawn.items()}
    write_text(folder / "report.html", to_html(report, svgs))
    write_text(folder / "report.md", to_markdown(report, list(drawn)))


def to_html(report: Report, svgs: Mapping[str, str]) -> str:
    """Returns the page; `svgs` are its figures by name."""
    escape = html.escape

    def bullets(items: Sequence[str]) -> str:
        return "<ul>\n" + "\n".join(f"<li>{item}</li>" for item in items) + "\n</ul>"

    head, *rows = report.table()
    lines = ["".join(f"<th>{escape(text)}</th>" for text in head)]
    lines += ["".join(f"<td>{escape(text)}</td>" for text in row) for row in rows]
    failed = [f"<code>{escape(run)}</code>: {escape(line)}" for run, line in report.failed.items()]
    parts = [
        f"<h1>{escape(report.title)}</h1>",
        f'<p class="faint">{escape(report.state)}</p>',
        bullets([escape(line) for line in report.sentences()]),
        f'<p class="faint">{escape(report.caveats())}</p>',
        '<div class="table"><table>' + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>",
        *(
            f"<figure>{svg}<figcaption>{escape(figures.CAPTIONS[name])}</figcaption></figure>"
            for name, svg in svgs.items()
        ),
        f"<h2>Failed</h2>\n{bullets(failed)}" if failed else "",
        f"<h2>Notes</h2>\n{bullets([escape(note) for note in report.notes])}" if report.notes else "",
        f"<h2>How it was made</h2>\n<pre>{escape(report.command)}</pre>",
        bullets([escape(f"{key}: {value}") for key, value in report.details.items()]),
    ]
    page = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    colours = {"light": css_colours(dark=False), "dark": css_colours(dark=True)}
    return page.substitute(title=escape(report.title), body="\n".join(part for part in parts if part), **colours)


def to_markdown(report: Report, names: Sequence[str]) -> str:
    """Returns the same report, with the pictures `names` in figures/."""

    def escape(text: str) -> str:
        return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")

    def bullets(items: Sequence[str]) -> str:
        return "\n".join(f"- {item}" for item in items)

    head, *rows = report.table()
    table = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    failed = [f"`{run}`: {escape(line)}" for run, line in report.failed.items()]
    parts = [
        f"# {escape(report.title)}",
        report.state,
        bullets([escape(line) for line in report.sentences()]),
        report.caveats(),
        "\n".join(f"| {' | '.join(map(escape, row))} |" for row in table),
        *(f"![{name}](figures/{name}.png)\n\n{figures.CAPTIONS[name]}" for name in names),
        f"## Failed\n\n{bullets(failed)}" if failed else "",
        f"## Notes\n\n{bullets([escape(note) for note in report.notes])}" if report.notes else "",
        f"## How it was made\n\n```sh\n{report.command}\n```",
        bullets([f"{key}: {escape(value)}" for key, value in report.details.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
