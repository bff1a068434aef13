"""The report as one page: nothing is loaded from anywhere, and it is readable by day and night."""

from collections.abc import Mapping, Sequence
from html import escape

from .figures import CAPTIONS
from .report import Report
from .style import page_colours

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; %s }
@media (prefers-color-scheme: dark) { :root { --page: #15181c; %s } }
body { background: var(--page); color: var(--ink); max-width: 64rem; margin: 2.5rem auto; padding: 0 1.2rem;
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin-top: 2.4rem; }
.faint, figcaption, footer { color: var(--faint); font-size: .88rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; width: 100%%; }
th { font-weight: 500; color: var(--faint); }
th, td { text-align: right; padding: .38rem .7rem; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; padding-left: 0; font-weight: 600; }
figure { margin: 2.2rem 0; overflow-x: auto; }
figure svg { display: block; height: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .8rem 1rem; border: 1px solid var(--rule);
  border-radius: 6px; font-size: .85rem; }
code { overflow-wrap: anywhere; font-size: .92em; }
li { margin: .25rem 0; }
"""


def page(report: Report, figures: Mapping[str, str]) -> str:
    """`report` as HTML.

    Args:
        figures: SVG elements by name.
    """
    head, *rows = report.table()
    captions = {name: f"<figcaption>{escape(CAPTIONS[name])}</figcaption>" for name in figures}
    drawn = [f"<figure>{svg}{captions[name]}</figure>" for name, svg in figures.items()]
    parts = [
        f"<h1>{escape(report.title)}</h1>",
        f'<p class="faint">{escape(report.state)}</p>',
        _list([escape(line) for line in report.sentences()]),
        f'<p class="faint">{escape(report.caveat())}</p>',
        _table(head, rows),
        *drawn,
    ]
    if report.failed:
        items = [f"<code>{escape(run)}</code>: {escape(line)}" for run, line in report.failed.items()]
        parts += ["<h2>Failed</h2>", _list(items)]
    if report.notes:
        parts += ["<h2>Notes</h2>", _list([escape(note) for note in report.notes])]
    details = [f"{escape(key)}: {escape(value)}" for key, value in report.details.items()]
    parts += ["<h2>How it was made</h2>", f"<pre>{escape(report.command)}</pre>", _list(details)]
    style = STYLE % (page_colours(dark=False), page_colours(dark=True))
    title, body = escape(report.title), "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _list(items: Sequence[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{item}</li>" for item in items) + "\n</ul>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{escape(text)}</th>" for text in head)]
    lines += ["".join(f"<td>{escape(text)}</td>" for text in row) for row in rows]
    return '<div class="table"><table>\n' + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table></div>"
