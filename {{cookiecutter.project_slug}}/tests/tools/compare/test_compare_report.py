"""The report: what its tables, sentences and figures hold, by runs whose numbers are known."""

import re
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from {{cookiecutter.package_name}}.tools.compare.comparison import Comparison, choose_baseline
from {{cookiecutter.package_name}}.tools.compare.figures import Look, shift
from {{cookiecutter.package_name}}.tools.compare.grid import Cell, combine
from {{cookiecutter.package_name}}.tools.compare.report import Report
from {{cookiecutter.package_name}}.tools.compare.results import Result, band, read_result, thinned
from {{cookiecutter.package_name}}.tools.compare.style import COLOURS, colours, spaced
from {{cookiecutter.package_name}}.tools.compare.write import how_it_was_made, write_report

STEPS = range(5, 105, 5)
Value = Callable[[Mapping[str, str], int], float | None]


def result(value: float | None, seed: int, alphas: Sequence[float] = (), shift: dict[str, Any] | None = None) -> Result:
    level = value or 0.0
    summary = {"test/acc": value, "seconds": 60.0, "tokens_per_second": 1500.0, "parameters": 1000 + seed}
    curves = {
        "train/loss": {step: 2 / step for step in STEPS},
        "val/loss": {step: 3 / step for step in STEPS},
        "val/acc": {step: level - 1 / step for step in STEPS},
    }
    layers = {f"{depth:02}_blocks.{depth}.norm": alpha for depth, alpha in enumerate(alphas)}
    return Result(seed, {**summary, "peak_memory_bytes": 3 * 2**20}, value, curves, layers, shift)


def compared(argv: Sequence[str], value: Value, baseline: str = "", **result_of: Any) -> Comparison:
    grid = combine(argv)
    results: dict[Cell, list[Result]] = {}
    for one in grid.combinations:
        alphas = [0.5, 0.7] if one.cfg["norm"]["name"] in ("dyt", "derf") else []
        found = result(value(dict(one.cell), one.seed), one.seed, alphas, **result_of)
        results.setdefault(one.cell, []).append(found)
    return Comparison(grid, results, "test/acc", True, choose_baseline(grid, baseline))


LEVELS: dict[str, list[Any]] = {"dyt": [0.95, 0.97, 0.96], "ln": [0.91, 0.95, 0.90], "bn": [0.5, None, None]}
SHIFT: dict[str, Any] = {
    **{"metric": "test/acc", "mode": "max", "clean": 0.95, "strengths": [1, 2]},
    "clean_by_kind": {"gaussian_noise": 0.95, "blur": 0.85},
    "kinds": {"gaussian_noise": [0.9, 0.5], "blur": [0.8, None]},
}
FIVE = ["norm=dyt,ln,bn", "seed=0,1,2"]


@pytest.fixture(scope="module")
def norms() -> Comparison:
    return compared(FIVE, lambda cell, seed: LEVELS[cell["norm"]][seed], shift=SHIFT)


@pytest.fixture(scope="module")
def written(norms: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(whole_report(norms), folder)
    return folder


def whole_report(norms: Comparison) -> Report:
    failed = {"ln-seed3-0": "ValueError: <b>|</b>"}
    return Report(norms, "9 of 10 runs finished, 1 failed.", "python compare.py a<b", failed, ["Mind & see."])


def test_the_table(norms: Comparison) -> None:
    head, *rows = Report(norms, "", "").table()
    assert head[1:6] == ["test/acc", "difference", "95 % interval", "seconds", "tokens/s"]
    differences = np.subtract(LEVELS["dyt"], LEVELS["ln"])
    half = 4.302653 * np.std(differences, ddof=1) / np.sqrt(3)  # Student's t of two degrees of freedom, from a table
    low, high = np.mean(differences) - half, np.mean(differences) + half
    assert rows[0] == [
        *("dyt", "0.960 ± 0.010 (n=3)", "+0.040 (n=3)", f"{low:.3f} to {high:.3f}", "60", "1,500", "3 MiB", "1,001")
    ]
    assert rows[1][1:4] == ["0.920 ± 0.026 (n=3)", "baseline", ""]
    assert rows[2][1:4] == ["0.500 (n=1)", "-0.410 (n=1)", ""]


def test_sentences(norms: Comparison) -> None:
    report = Report(norms, "", "")
    dyt, ln, bn = report.sentences()
    assert dyt.startswith("dyt: 0.960 ± 0.010 (n=3), +0.040 to ln, 95 % CI ")
    assert ln == "ln: 0.920 ± 0.026 (n=3), the baseline."
    assert bn.endswith("from chance. 2 of its runs diverged: test/acc is no number there.")
    assert "The intervals" in report.caveat()
    assert "one in twenty" not in report.caveat(), "there is one interval"


def test_markdown(written: Path) -> None:
    text = (written / "report.md").read_text()
    assert text.startswith("# norm = dyt, ln, bn; 3 seeds\n\n9 of 10 runs finished, 1 failed.\n\n- dyt: 0.960")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {9}
    assert "`ln-seed3-0`: ValueError: &lt;b&gt;\\|&lt;/b&gt;" in text
    pictures = re.findall(r"!\[\w+\]\((.*?)\)", text)
    assert pictures == [f"figures/{name}.png" for name in ("scores", "shift", "curves", "alpha")]
    assert all((written / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("href", "src", "xlink:href", "data")]


def test_the_page_needs_nothing_besides(written: Path) -> None:
    text = (written / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert not {"script", "link", "img", "iframe", "object", "b"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert not re.findall(r"@import|url\((?!#)", text)
    assert "a&lt;b" in text
    assert "Mind &amp; see." in text
    assert "prefers-color-scheme: dark" in text


def test_figures_take_the_colours_of_the_page(written: Path) -> None:
    text = (written / "report.html").read_text()
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures) == 4
    for figure in figures:
        own = {node.get("id") for node in ElementTree.fromstring(figure).iter()}
        assert {*re.findall(r"url\(#(.*?)\)", figure), *re.findall(r'href="#(.*?)"', figure)} <= own
        assert not re.search("|".join(light for light, _ in COLOURS.values()), figure)
    words = {node.text for figure in figures for node in ElementTree.fromstring(figure).iter() if node.text}
    assert {"dyt", "ln", "bn", "blocks.1.norm", "gaussian noise", "mean over kinds", "val/acc"} <= words
    used = set(re.findall(r"var\(--(\w+)\)", text))
    defined = [set(re.findall(r"--(\w+):", part)) for part in text.partition("prefers-color-scheme")[::2]]
    assert used <= defined[0] & defined[1]


def test_each_kind_starts_where_it_starts_and_null_is_left_out(norms: Comparison) -> None:
    figure = shift(norms, Look(norms))
    assert figure is not None
    drawn = {axes.get_title(): axes.lines[0].get_xydata() for axes in figure.axes if axes.get_visible()}
    assert {title: np.asarray(line).tolist() for title, line in drawn.items()} == {
        "mean over kinds": [[0, pytest.approx(0.9)], [1, pytest.approx(0.85)]],
        "gaussian noise": [[0, pytest.approx(0.95)], [1, pytest.approx(0.9)], [2, pytest.approx(0.5)]],
        "blur": [[0, pytest.approx(0.85)], [1, pytest.approx(0.8)]],
    }


def test_equal_comparisons_make_equal_pages(norms: Comparison, written: Path, tmp_path: Path) -> None:
    write_report(whole_report(norms), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == (written / "report.html").read_bytes()


def test_one_swept_number_is_a_line_over_it() -> None:
    one = compared(["norm=dyt,ln", "norm.alpha0=0.5,1,2"], lambda cell, _: float(cell.get("norm.alpha0", 3)))
    axes = Report(one, "", "").figures()["sweep"].axes[0]
    assert axes.get_xscale() == "log"
    lines = [np.array(line.get_data()).tolist() for line in axes.lines]
    assert lines == [[[0.5, 1.0, 2.0], [0.5, 1.0, 2.0]], [[0.5, 2.0], [3.0, 3.0]]]
    assert [text.get_text() for text in axes.texts] == ["dyt", "ln"]


def test_two_swept_numbers_are_a_heat_map_for_each_norm() -> None:
    argv = ["norm=dyt,derf", "norm.alpha0=0.5,1", "optim.lr=1e-2,1e-3"]
    one = compared(argv, lambda cell, _: float(cell["norm.alpha0"]) + 10 * float(cell["optim.lr"]))
    figure = Report(one, "", "").figures()["sweep"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["dyt", "derf"]
    fields = {text.get_position(): float(text.get_text()) for text in figure.axes[1].texts}
    assert fields == {(0.5, 0.5): 0.51, (1.5, 0.5): 0.6, (0.5, 1.5): 1.01, (1.5, 1.5): 1.1}
    assert [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"] == ["1.1000"]


def test_of_many_cells_the_best_are_told_and_that_this_flatters_them() -> None:
    argv = ["norm=dyt,ln", "optim.lr=1,2,3,4,5", "seed=0,1"]
    best = {"dyt": 2.0, "ln": 4.0}

    def value(cell: Mapping[str, str], seed: int) -> float:
        return 0.9 - 0.1 * abs(float(cell["optim.lr"]) - best[cell["norm"]]) + 0.01 * seed * best[cell["norm"]]

    report = Report(compared(argv, value), "", "")
    dyt, ln = report.sentences()
    assert dyt.startswith("dyt, lr=2: 0.910 ± 0.014 (n=2), -0.010 to ln, lr=4, 95 % CI ")
    assert ln == "ln, lr=4: 0.920 ± 0.028 (n=2), the baseline."
    assert "Of 10 cells the best of each norm is told, chosen by this very metric" in report.caveat()
    assert len(report.table()) == 11


def test_nothing_finished_yet(tmp_path: Path) -> None:
    grid = combine(["norm=dyt,ln"])
    nothing = Comparison(grid, {}, "test/acc", True, ("norm", "ln"))
    write_report(Report(nothing, "0 of 2 runs finished.", "python compare.py"), tmp_path)
    assert "dyt: no run has finished." in (tmp_path / "report.md").read_text()


def test_what_is_not_alike_in_all_runs_is_told() -> None:
    git = {"commit": "a" * 40, "changed": True}
    one, other = {"versions": {"torch": "2.9"}, "git": git}, {"versions": {"torch": "2.10"}, "git": git}
    details, notes = how_it_was_made([one, other, one])
    assert details["versions"] == "torch 2.9; torch 2.10"
    assert details["git"] == "commit aaaaaaaaaaaa, with changes"
    assert notes == ["The runs differ in versions: torch 2.9; torch 2.10."]


def test_reading_a_run(tmp_path: Path) -> None:
    rows = ["step,tag,value", "0,alpha/01_b,0.5", "0,alpha/00_a,0.6", "9,alpha/01_b,0.7", "9,alpha/00_a,0.8"]
    (tmp_path / "metrics.csv").write_text("\n".join([*rows, "3,val/loss,2.0", "3,val/loss,1.5", ""]))
    (tmp_path / "summary.json").write_text('{"test/acc": null, "test/loss": 0.5, "samples_per_second": 3.0}')
    found = read_result(tmp_path, 1, "test/loss")
    assert isinstance(found, Result)
    assert list(found.alphas.items()) == [("00_a", 0.8), ("01_b", 0.7)]
    assert (found.curves["val/loss"], found.value, found.rate) == ({3: 1.5}, 0.5, ("samples", 3.0))
    diverged = read_result(tmp_path, 1, "test/acc")
    assert isinstance(diverged, Result)
    assert diverged.value is None
    (tmp_path / "summary.json").write_text('{"val/acc": 0.1, "diverged": true}')  # and was never tested
    untested = read_result(tmp_path, 1, "test/acc")
    assert isinstance(untested, Result)
    assert (untested.value, untested.curves) == (None, found.curves)
    (tmp_path / "summary.json").write_text('{"test/acc": null, "test/loss": 0.5}')
    assert read_result(tmp_path, 1, "test/f1") == "it has no test/f1; it has test/acc, test/loss"
    for file in ("shift-x.json", "metrics.csv", "summary.json"):  # cut off
        (tmp_path / file).write_text("{" if file != "metrics.csv" else "step,tag,value\n3,val/lo")
        assert "cannot be read" in str(read_result(tmp_path, 1, "test/acc", "x"))
    assert "cannot be read" in str(read_result(tmp_path, 1, "test/acc"))


def test_bands_and_thinned_curves() -> None:
    steps, mean, low, high = band([{1: 1.0, 2: 2.0, 3: 9.0}, {1: 3.0, 2: float("nan")}])
    assert (steps, mean, low, high) == ([1, 2], [2.0, 2.0], [1.0, 2.0], [3.0, 2.0])
    curve = {step: float(step) for step in range(1, 601)}
    assert thinned(curve, 60) == {10 * number: 10 * number - 4.5 for number in range(1, 61)}
    assert thinned({1: 5.0}) == {1: 5.0}


def test_labels_move_apart_as_little_as_it_takes() -> None:
    assert spaced([0.1, 0.5], 0.2) == [0.1, 0.5]
    assert spaced([0.5, 0.5], 0.2) == pytest.approx([0.4, 0.6])
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = list(rng.random(6))
        placed = spaced(values, 0.1)
        assert np.diff(np.array(placed)[np.argsort(values)]).min() >= 0.1 - 1e-9
        assert sum(placed) == pytest.approx(sum(values))


def test_a_norm_keeps_its_colour() -> None:
    names = ["mine", "dyt", "bn", "yours", "ln"]
    found = colours(names)
    assert len(set(found.values())) == len(names)
    assert found["dyt"] == colours(["dyt"])["dyt"] == COLOURS["blue"][0]
    assert len(set(colours(["1", "2", "3"], ordered=True).values())) == 3
