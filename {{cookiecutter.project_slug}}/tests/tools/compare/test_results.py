"""Numbers of runs, and what they support."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from {{cookiecutter.package_name}}.tools.compare.report import number, sentence
from {{cookiecutter.package_name}}.tools.compare.results import (
    Difference,
    Spread,
    band,
    paired_difference,
    read_result,
    thin,
)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_interval_is_students(n: int) -> None:
    rng = np.random.default_rng(n)
    ours, theirs = rng.normal(1.0, 0.1, n), rng.normal(0.9, 0.1, n)
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    half = t.ppf(0.975, n - 1) * np.std(ours - theirs, ddof=1) / math.sqrt(n)
    mean = np.mean(ours - theirs)
    assert found is not None
    assert found.mean == pytest.approx(mean)
    assert found.interval == pytest.approx((mean - half, mean + half))


def test_only_common_seeds_are_compared() -> None:
    assert paired_difference({0: 1.0, 1: 2.0, 2: 5.0}, {2: 3.0, 3: 9.0}) == Difference(2.0, None, 1)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_equal_differences_have_no_interval() -> None:
    """One of 270 samples more for every seed: in float32 the differences are equal but for rounding."""
    shares = np.array([[265, 266, 267], [264, 265, 266]], np.float32) / np.float32(270)
    ours, theirs = (dict(enumerate(row.tolist())) for row in shares)
    assert len({ours[seed] - theirs[seed] for seed in ours}) > 1
    found = paired_difference(ours, theirs)
    assert found is not None
    assert found.interval is None
    assert found.mean == pytest.approx(1 / 270, rel=1e-4)


@pytest.mark.parametrize(
    ("difference", "higher", "words"),
    [
        (Difference(0.002, (-0.004, 0.008), 3), True, "+0.002 to ln, 95 % CI -0.004 to 0.008: within seed noise"),
        (Difference(-0.021, (-0.03, -0.012), 3), True, "worse than ln"),
        (Difference(-0.021, (-0.03, -0.012), 3), False, "better than ln"),
        (Difference(0.021, (0.012, 0.03), 3), True, "better than ln"),
        (Difference(0.021, (0.012, 0.03), 2), False, "(2 seeds in common), which excludes 0: worse than ln"),
        (Difference(0.02, (0.0, 0.04), 3), True, "within seed noise"),
        (Difference(0.002, None, 1), True, "One seed"),
        (Difference(0.1, None, 2), True, "the same in each of 2 seeds"),
        (None, True, "not compared"),
    ],
)
def test_a_sentence_says_what_the_numbers_support(difference: Difference | None, higher: bool, words: str) -> None:
    line = sentence("dyt", Spread(0.986, 0.0032, 3), difference, "ln", higher, 3)
    assert line.startswith("dyt: 0.986 ± 0.003 (n=3)")
    assert words in line
    assert ("better" in line or "worse" in line) == (difference is not None and difference.excludes_zero)


def test_no_minus_zero() -> None:
    assert (number(-0.0001, 2), number(-0.0001, 2, "+"), number(-0.01, 2)) == ("0.00", "+0.00", "-0.01")


def test_reading_a_run(tmp_path: Path) -> None:
    def write(summary: str) -> None:
        (tmp_path / "summary.json").write_text(summary)

    rows = ["step,tag,value", "0,alpha/01_b,0.5", "0,alpha/00_a,0.6", "9,alpha/01_b,0.7", "9,alpha/00_a,0.8"]
    (tmp_path / "metrics.csv").write_text("\n".join([*rows, "3,val/loss,2.0", "3,val/loss,1.5", ""]))
    write('{"test/acc": null, "test/loss": 0.5, "samples_per_second": 3.0}')
    found = read_result(tmp_path, 1, "test/loss")
    assert list(found.alphas.items()) == [("00_a", 0.8), ("01_b", 0.7)]
    assert (found.curves["val/loss"], found.value) == ({3: 1.5}, 0.5)
    assert read_result(tmp_path, 1, "test/acc").value is None
    with pytest.raises(ValueError, match="test/f1"):
        read_result(tmp_path, 1, "test/f1")
    write('{"val/acc": 0.1, "diverged": true}')  # it was never tested
    assert read_result(tmp_path, 1, "test/acc").value is None
    write("{")
    with pytest.raises(ValueError, match="cannot be read"):
        read_result(tmp_path, 1, "test/acc")


def test_bands_and_thinned_curves() -> None:
    nan = float("nan")
    found = band([{1: 1.0, 2: 2.0, 3: 9.0, 4: nan}, {1: 3.0, 2: nan, 4: nan}])
    assert found.tolist() == [[1, 2], [2, 2], [1, 2], [3, 2]]
    assert band([]).shape == band([{1: 1.0}, {2: 1.0}]).shape == (4, 0)
    curve = {step: float(step) for step in range(1, 601)}
    assert thin(curve, 60) == {10 * number: 10 * number - 4.5 for number in range(1, 61)}
    assert thin({1: 5.0}) == {1: 5.0}
