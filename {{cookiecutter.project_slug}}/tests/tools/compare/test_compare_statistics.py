"""What is made of numbers, and what is said of them."""

import math
import re

import numpy as np
import pytest
from scipy import stats

from {{cookiecutter.package_name}}.tools.compare.sentences import caveat, decimals, number, sentence
from {{cookiecutter.package_name}}.tools.compare.statistics import Difference, Spread, paired_difference, spread


def test_spread_is_that_of_a_sample() -> None:
    values = [0.91, 0.97, 0.93, 0.88]
    one = spread(values)
    assert one is not None
    assert [one.mean, one.n] == pytest.approx([np.mean(values), 4])
    assert one.std == pytest.approx(np.std(values, ddof=1))
    assert spread([0.9]) == Spread(0.9, None, 1)
    assert spread([]) is None


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_interval_is_students(n: int) -> None:
    rng = np.random.default_rng(n)
    ours, theirs = rng.normal(1.0, 0.1, n), rng.normal(0.9, 0.1, n)
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found is not None
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(np.mean(ours - theirs))


def test_only_seeds_in_common_are_compared() -> None:
    assert paired_difference({0: 1.0, 1: 2.0, 2: 5.0}, {2: 3.0, 3: 9.0}) == Difference(2.0, None, 1)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_equal_differences_have_no_interval() -> None:
    found = paired_difference({0: 0.1 + 0.2, 1: 0.5}, {0: 0.1, 1: 0.3})
    assert found is not None
    assert (found.interval, found.n) == (None, 2)


def test_rounding_is_no_spread() -> None:
    """One of 270 samples more in every seed, as metrics in single precision have it."""
    shares = np.array([[265, 266, 267], [264, 265, 266]], np.float32) / np.float32(270)
    ours, theirs = (dict(enumerate(row.tolist())) for row in shares)
    assert len({ours[seed] - theirs[seed] for seed in ours}) > 1
    found = paired_difference(ours, theirs)
    assert found is not None
    assert found.interval is None
    assert found.mean == pytest.approx(1 / 270, rel=1e-4)


SPREAD = Spread(0.986, 0.0032, 3)


@pytest.mark.parametrize(
    ("difference", "higher", "said"),
    [
        (Difference(0.002, (-0.004, 0.008), 3), True, "+0.002 to ln, 95 % CI -0.004 to 0.008: within seed noise of ln"),
        (Difference(-0.021, (-0.03, -0.012), 3), True, "95 % CI -0.030 to -0.012, which excludes 0: worse than ln."),
        (Difference(-0.021, (-0.03, -0.012), 3), False, "95 % CI -0.030 to -0.012, which excludes 0: better than ln."),
        (Difference(0.021, (0.012, 0.03), 3), True, "+0.021 to ln, 95 % CI 0.012 to 0.030, which excludes 0: better"),
        (Difference(0.021, (0.012, 0.03), 3), False, "which excludes 0: worse than ln."),
        (Difference(0.021, (0.012, 0.03), 2), True, "0.012 to 0.030 (2 seeds in common), which excludes 0: better"),
        (Difference(0.02, (0.0, 0.04), 3), True, "95 % CI 0.000 to 0.040: within seed noise of ln."),
        (Difference(0.002, None, 1), True, "+0.002 to ln. One seed does not tell a difference from chance."),
        (Difference(0.0, None, 2), True, "+0.000 to ln, equal in each of 2 seeds, so there is no spread"),
        (Difference(0.1, None, 2), True, "+0.100 to ln, by the same difference in each of 2 seeds"),
        (None, True, "; no seed finished under it and ln, so they are not compared."),
    ],
)
def test_a_sentence_says_what_the_numbers_support(difference: Difference | None, higher: bool, said: str) -> None:
    line = sentence("dyt", SPREAD, difference, "ln", higher, 3)
    assert line.startswith("dyt: 0.986 ± 0.003 (n=3)")
    assert said in line
    assert ("better" in line or "worse" in line) == (difference is not None and difference.excludes_zero)


def test_sentences_without_a_comparison() -> None:
    assert sentence("ln", SPREAD, Difference(0.0, None, 3), "ln", True, 3) == "ln: 0.986 ± 0.003 (n=3), the baseline."
    assert sentence("ln", Spread(0.5, None, 1), None, "", True, 2) == "ln: 0.50 (n=1)."
    assert sentence("ln", None, None, "dyt", True, 3) == "ln: no run has finished."


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    """Which is what a report claims of them: 2000 comparisons of two recipes that are alike, under three seeds."""
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(2000):
        ours, theirs = (dict(enumerate(rng.normal(0.9, 0.01, 3))) for _ in range(2))
        line = sentence("dyt", spread(list(ours.values())), paired_difference(ours, theirs), "ln", True, 4)
        verdicts.append("within seed noise" in line)
    assert sum(verdicts) / 2000 == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 2000))


def test_the_caveat_counts_comparisons_and_seeds() -> None:
    assert caveat(0, 0) == ""
    assert "one in twenty" not in caveat(1, 3)
    assert re.search(r"There are 4 of them: one in twenty .* by chance", caveat(4, 3))
    assert "an interval is wide" in caveat(4, 3)
    assert "an interval is wide" not in caveat(4, 10)


@pytest.mark.parametrize(
    ("stds", "precision"), [([0.0032], 4), ([0.032, 0.0001, 0.05], 3), ([2.1], 2), ([1e-9], 6), ([None], 4), ([0.0], 4)]
)
def test_as_many_decimals_as_the_spread_has_use_for(stds: list[float | None], precision: int) -> None:
    assert decimals([Spread(1.0, std, 3) for std in stds] + [None]) == precision


def test_no_minus_zero() -> None:
    assert (number(-0.0001, 2), number(-0.0001, 2, sign=True), number(-0.01, 2)) == ("0.00", "0.00", "-0.01")
