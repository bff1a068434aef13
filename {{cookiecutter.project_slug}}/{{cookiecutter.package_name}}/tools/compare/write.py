"""The report's files, and what they say of how it was made."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...utils import cpu_count, write_text
from .figures import CAPTIONS
from .markdown import markdown
from .page import page
from .report import Report
from .style import to_svg, write_png


def write_report(report: Report, folder: Path) -> None:
    """`report.md` with `figures/*.png`, and `report.html`, which needs nothing besides."""
    figures = report.figures()
    (folder / "figures").mkdir(exist_ok=True)
    for name in CAPTIONS.keys() - figures.keys():
        (folder / "figures" / f"{name}.png").unlink(missing_ok=True)
    for name, figure in figures.items():
        write_png(figure, folder / "figures" / f"{name}.png")
    svg = {name: to_svg(figure, name) for name, figure in figures.items()}
    write_text(folder / "report.md", markdown(report, list(figures)))
    write_text(folder / "report.html", page(report, svg))


def how_it_was_made(results: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Versions, git state and machine by the summaries of the runs; and in a note what is not alike in all of them."""
    details, notes = {}, []
    for key in ("versions", "git"):
        found = list(dict.fromkeys(json.dumps(one.get(key)) for one in results))
        if found:
            details[key] = "; ".join(_told(json.loads(one)) for one in found)
        if len(found) > 1:
            notes.append(f"The runs differ in {key}: {details[key]}.")
    details["machine that wrote this"] = f"{platform.system()} {platform.machine()}, {cpu_count()} CPUs{_gpus()}"
    return details, notes


def _told(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return "no git repository"
    if "commit" in facts:
        return f"commit {facts['commit'][:12]}{', with changes' if facts.get('changed') else ''}"
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _gpus() -> str:
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return f", {len(names)} x {names[0]}" if names else ", no GPU"
