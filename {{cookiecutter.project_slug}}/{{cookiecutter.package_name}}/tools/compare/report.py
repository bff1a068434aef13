"""Writes a comparison as sentences, a table and figures: report.md, and report.html, which needs no other file."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from markdown_it import MarkdownIt

from ...utils import write_text
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
        baseline = "" if reference is None else one.grid.label(reference)
        difference = one.difference(cell, reference)
        text = sentence(one.grid.label(cell), one.spread(cell), difference, baseline, one.higher_is_better, one.digits)
        diverged = len(one.results.get(cell, ())) - len(one.values(cell))
        return f"{text} {diverged} of its runs diverged: {one.metric} is no number there." if diverged else text

    def caveats(self) -> str:
        """Returns what limits these sentences."""
        one, text = self.comparison, ""
        if "seed" in one.grid.swept:
            text += (
                "Intervals are of paired differences by seed (Student's t). They speak of other seeds of this recipe,"
                " not of other data, sizes or tuning. One in twenty misses the true difference by chance. With few"
                " seeds they are wide: within noise does not mean that there is no difference. "
            )
        if len(one.shown) < len(one.grid.cells):
            text += (
                f"Of {len(one.grid.cells)} cells the best of each {one.main_key} is shown here. It was chosen by this"
                " very metric, which flatters it: measure it again with other seeds. The table has all cells."
            )
        return text.strip()

    def table(self) -> list[list[str]]:
        """Returns rows of text, the head first."""
        one = self.comparison
        summaries = [each.summary for results in one.results.values() for each in results]
        rates = {key for summary in summaries for key in summary if key.endswith("_per_second")}
        rate = rates.pop() if len(rates) == 1 else ""
        head = ["", one.metric, "difference", "95 % interval", "seconds", rate.replace("_per_second", "/s")]
        return [[*head, "peak memory", "parameters"], *(self._row(cell, rate) for cell in one.grid.cells)]

    def _row(self, cell: Cell, rate: str) -> list[str]:
        one, summaries = self.comparison, [each.summary for each in self.comparison.results.get(cell, ())]
        spread, reference = one.spread(cell), one.reference(cell)
        difference = one.difference(cell, reference)
        mean = interval = ""
        if reference == cell:
            mean = "baseline"
        elif difference is not None:
            mean = f"{number(difference.mean, one.digits, '+')} (n={difference.n})"
            interval = shown_interval(difference, one.digits)

        def average(key: str, scale: int = 1, unit: str = "") -> str:
            known = [summary[key] for summary in summaries if summary.get(key) is not None]
            return f"{sum(known) / len(known) / scale:,.0f}{unit}" if known else ""

        costs = average("seconds"), average(rate), average("peak_memory_bytes", 2**20, " MiB"), average("parameters")
        return [one.grid.label(cell), shown_spread(spread, one.digits) if spread else "none", mean, interval, *costs]

    def origin(self) -> list[str]:
        """Returns versions and git state; where the runs differ, all of them."""
        summaries = [one.summary for runs in self.comparison.results.values() for one in runs]
        lines = []
        for key in ("versions", "git"):
            facts = [", ".join(f"{name} {value}" for name, value in (one.get(key) or {}).items()) for one in summaries]
            found = [text or "none" for text in dict.fromkeys(facts)]
            lines.append(f"{key}: {'; '.join(found)}{' (the runs differ)' if len(found) > 1 else ''}")
        return lines


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


def write_report(report: Report, folder: Path) -> None:
    """Writes `report.md` with its pictures, and `report.html`."""
    drawn = figures.draw(report.comparison)
    (folder / "figures").mkdir(exist_ok=True)
    for name in figures.CAPTIONS:
        path = folder / "figures" / f"{name}.png"
        path.unlink(missing_ok=True)  # of an earlier comparison
        if name in drawn:
            write_png(drawn[name], path)
    text = to_markdown(report, list(drawn))
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", to_html(text, report.title, {name: to_svg(drawn[name], name) for name in drawn}))


def to_markdown(report: Report, names: Sequence[str]) -> str:
    """Returns the report with the pictures `names` in figures/."""

    def escape(text: str) -> str:
        return re.sub(r"([\\`*|])", r"\\\1", html.escape(text, quote=False))

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
        bullets([escape(line) for line in report.origin()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(markdown: str, title: str, svgs: Mapping[str, str]) -> str:
    """Returns the page of a report, with `svgs` by name in place of its pictures."""
    body = MarkdownIt("js-default").render(markdown)  # escapes HTML
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    for name, svg in svgs.items():
        picture = f'<p><img src="figures/{name}.png" alt="{name}"></p>\n<p>'
        before, _, rest = body.partition(picture)
        caption, _, after = rest.partition("</p>")
        body = f"{before}<figure>{svg}<figcaption>{caption}</figcaption></figure>{after}"
    page = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    colours = {"light": css_colours(dark=False), "dark": css_colours(dark=True)}
    return page.substitute(title=html.escape(title), body=body, **colours)
