"""The report as Markdown, with its pictures beside it."""

import html
from collections.abc import Sequence

from .figures import CAPTIONS
from .report import Report


def markdown(report: Report, figures: Sequence[str]) -> str:
    head, *rows = report.table()
    parts = [
        f"# {_escaped(report.title)}",
        report.state,
        "\n".join(f"- {line}" for line in map(_escaped, report.sentences())),
        report.caveat(),
        "\n".join([_row(head), _row(["---", *["---:"] * (len(head) - 1)]), *map(_row, rows)]),
    ]
    parts += [f"![{name}](figures/{name}.png)\n\n{CAPTIONS[name]}" for name in figures]
    if report.failed:
        parts += ["## Failed", "\n".join(f"- `{run}`: {_escaped(line)}" for run, line in report.failed.items())]
    if report.notes:
        parts += ["## Notes", "\n".join(f"- {_escaped(note)}" for note in report.notes)]
    details = [f"- {key}: {_escaped(value)}" for key, value in report.details.items()]
    parts += ["## How it was made", f"```sh\n{report.command}\n```", "\n".join(details)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")
