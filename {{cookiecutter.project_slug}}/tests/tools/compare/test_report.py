"""The table, sentences, figures and pages of runs whose numbers are known."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from {{cookiecutter.package_name}}.tools.compare.figures import draw
from {{cookiecutter.package_name}}.tools.compare.grid import combine
from {{cookiecutter.package_name}}.tools.compare.report import Report, write_report
from {{cookiecutter.package_name}}.tools.compare.results import Comparison, Result
from {{cookiecutter.package_name}}.tools.compare.style import COLOURS, colours

from .fakes import compared

LEVELS: dict[str, list[Any]] = {"dyt": [0.95, 0.97, 0.96], "ln": [0.91, 0.95, 0.90], "bn": [0.5, None, None]}
SHIFT: dict[str, Any] = {
    **{"metric": "test/acc", "mode": "max", "clean": 0.95, "strengths": [1, 2]},
    "clean_by_kind": {"gaussian_noise": 0.95, "blur": 0.85},
    "kinds": {"gaussian_noise": [0.9, 0.5], "blur": [0.8, None]},
}


@pytest.fixture(scope="module")
def norms() -> Comparison:
    argv = ["norm=dyt,ln,bn", "seed=0,1,2"]
    return compared(argv, lambda cell, seed: LEVELS[cell["norm"]][seed], shift=SHIFT)


@pytest.fixture(scope="module")
def report(norms: Comparison) -> Report:
    failed = {"ln-seed3-0": "ValueError: <b>|</b>"}
    return Report(norms, "9 of 10 runs finished, 1 failed.", "python compare.py a<b", failed, ["Mind & see."])


@pytest.fixture(scope="module")
def written(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(report, folder)
    return folder


def test_the_table(report: Report) -> None:
    head, dyt, ln, bn = report.table()
    assert head[1:6] == ["test/acc", "difference", "95 % interval", "seconds", "tokens/s"]
    differences = np.subtract(LEVELS["dyt"], LEVELS["ln"])
    half = 4.302653 * np.std(differences, ddof=1) / np.sqrt(3)  # Student's t with two degrees of freedom, from a table
    low, high = np.mean(differences) - half, np.mean(differences) + half
    assert dyt[:4] == ["dyt", "0.960 ± 0.010 (n=3)", "+0.040 (n=3)", f"{low:.3f} to {high:.3f}"]
    assert dyt[4:] == ["60", "1,500", "3 MiB", "1,001"]
    assert ln[1:4] == ["0.920 ± 0.026 (n=3)", "baseline", ""]
    assert bn[1:4] == ["0.500 (n=1)", "-0.410 (n=1)", ""]


def test_sentences(report: Report) -> None:
    dyt, ln, bn = report.sentences()
    assert dyt.startswith("dyt: 0.960 ± 0.010 (n=3), +0.040 to ln, 95 % CI ")
    assert ln == "ln: 0.920 ± 0.026 (n=3), the baseline."
    assert "2 of its runs diverged" in bn
    assert "of this recipe" in report.caveats()


def test_of_many_cells_the_best_of_each_norm_is_shown() -> None:
    argv = ["norm=dyt,ln", "optim.lr=1,2,3,4,5", "seed=0,1"]
    best = {"dyt": 2.0, "ln": 4.0}

    def value(cell: Mapping[str, str], seed: int) -> float:
        return 0.9 - 0.1 * abs(float(cell["optim.lr"]) - best[cell["norm"]]) + 0.01 * seed * best[cell["norm"]]

    report = Report(compared(argv, value), "", "")
    dyt, ln = report.sentences()
    assert dyt.startswith("dyt, lr=2: 0.910 ± 0.014 (n=2), -0.010 to ln, lr=4, 95 % CI ")
    assert ln == "ln, lr=4: 0.920 ± 0.028 (n=2), the baseline."
    assert "flatters" in report.caveats()
    assert len(report.table()) == 11


def test_markdown(written: Path) -> None:
    text = (written / "report.md").read_text()
    assert text.startswith("# norm = dyt, ln, bn; 3 seeds\n\n9 of 10 runs finished, 1 failed.\n\n- dyt: 0.960")
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {9}
    assert "`ln-seed3-0`: ValueError: &lt;b&gt;\\|&lt;/b&gt;" in text
    pictures = re.findall(r"!\[\w+\]\((.*?)\)", text)
    assert pictures == [f"figures/{name}.png" for name in ("scores", "shift", "curves", "alpha")]
    assert all((written / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_the_page_needs_no_other_file(written: Path) -> None:
    text = (written / "report.html").read_text()
    assert not re.search(r"<(script|link|img|iframe|object|b)\b", text)
    assert all(link.startswith("#") for link in re.findall(r'(?:href|src|data)="(.*?)"', text))
    assert not re.findall(r"@import|url\((?!#)", text)
    assert "a&lt;b" in text
    assert "Mind &amp; see." in text


def test_figures_take_their_colours_from_the_page(written: Path) -> None:
    text = (written / "report.html").read_text()
    figures = re.findall(r"<figure>(<svg.*?</svg>)\s*<figcaption>\w", text, re.DOTALL)
    assert len(figures) == 4
    words = set()
    for figure in figures:
        nodes = list(ElementTree.fromstring(figure).iter())
        words |= {node.text for node in nodes}
        ids = {node.get("id") for node in nodes}
        assert {*re.findall(r"url\(#(.*?)\)", figure), *re.findall(r'href="#(.*?)"', figure)} <= ids
        assert not re.search("|".join(light for light, _ in COLOURS.values()), figure, re.IGNORECASE)
    assert {"dyt", "ln", "bn", "blocks.1.norm", "gaussian noise", "mean over kinds", "val/acc"} <= words
    used = set(re.findall(r"var\(--(\w+)\)", text))
    light, dark = (set(re.findall(r"--(\w+):", part)) for part in text.partition("prefers-color-scheme")[::2])
    assert used <= light & dark


def test_every_kind_of_shift_starts_at_its_own_clean_value(norms: Comparison) -> None:
    lines = {axes.get_title(loc="left"): axes.lines[0].get_xydata() for axes in draw(norms)["shift"].axes}
    drawn = {title: np.asarray(line).round(6).tolist() for title, line in lines.items() if title}
    assert drawn == {
        "mean over kinds": [[0, 0.9], [1, 0.85]],
        "gaussian noise": [[0, 0.95], [1, 0.9], [2, 0.5]],
        "blur": [[0, 0.85], [1, 0.8]],
    }


def test_the_last_alpha_over_depth(norms: Comparison) -> None:
    (axes,) = draw(norms)["alpha"].axes
    assert [np.asarray(line.get_xydata()).round(6).tolist() for line in axes.lines] == [[[0.5, 0], [0.7, 1]]]


def test_one_swept_number_is_a_line() -> None:
    one = compared(["norm=dyt,ln", "norm.alpha0=0.5,1,2"], lambda cell, _: float(cell.get("norm.alpha0", 3)))
    (axes,) = draw(one)["sweep"].axes
    assert axes.get_xscale() == "log"
    lines = [np.array(line.get_data()).tolist() for line in axes.lines]
    assert lines == [[[0.5, 1.0, 2.0], [0.5, 1.0, 2.0]], [[0.5, 2.0], [3.0, 3.0]]]


def test_two_swept_numbers_are_a_heat_map_for_each_norm() -> None:
    argv = ["norm=dyt,derf", "norm.alpha0=0.5,1", "optim.lr=1e-2,1e-3"]
    one = compared(argv, lambda cell, _: float(cell["norm.alpha0"]) + 10 * float(cell["optim.lr"]))
    figure = draw(one)["sweep"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["dyt", "derf"]
    fields = {text.get_position(): float(text.get_text()) for text in figure.axes[1].texts}
    assert fields == {(0.5, 0.5): 0.51, (1.5, 0.5): 0.6, (0.5, 1.5): 1.01, (1.5, 1.5): 1.1}
    assert [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"] == ["1.1000"]


def test_nothing_finished_yet(tmp_path: Path) -> None:
    nothing = Comparison(combine(["norm=dyt,ln"]), {}, "test/acc", True, ("norm", "ln"))
    write_report(Report(nothing, "0 of 2 runs finished.", "python compare.py"), tmp_path)
    assert "dyt: no run has finished." in (tmp_path / "report.md").read_text()


def test_different_versions_are_noted(norms: Comparison) -> None:
    git = {"commit": "a" * 40, "changed": True}
    runs = [Result(0, {"versions": {"torch": text}, "git": git}, None, {}) for text in ("2.9", "2.10", "2.9")]
    versions, commit = Report(dataclasses.replace(norms, results={norms.grid.cells[0]: runs}), "", "").origin()
    assert versions == "versions: torch 2.9; torch 2.10 (the runs differ)"
    assert commit.startswith("git: commit aaaa")


def test_a_norm_keeps_its_colour() -> None:
    names = ["mine", "dyt", "bn", "yours", "ln"]
    found = colours(names)
    assert len(set(found.values())) == len(names)
    assert found["dyt"] == colours(["dyt"])["dyt"]
