"""Combinations of values, and which are the same run."""

import pytest

from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.tools.compare.comparison import Comparison, choose_baseline
from {{cookiecutter.package_name}}.tools.compare.grid import combine, is_geometric, split, tracked_metric


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("dyt,ln", ["dyt", "ln"]),
        ("dyt", ["dyt"]),
        ("0, 1 ,2", ["0", "1", "2"]),
        ("", [""]),
        ("[0.9,0.99]", ["[0.9,0.99]"]),
        ("[0.9,0.99],[0.9,0.95]", ["[0.9,0.99]", "[0.9,0.95]"]),
        ("{a:1,b:2}", ["{a:1,b:2}"]),
        ("${by_width:1,2,3},4", ["${by_width:1,2,3}", "4"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ("it's,so", ["it's,so"]),
        ("[1,2", ["[1,2"]),
    ],
)
def test_commas_separate_values_outside_brackets_and_quotes(text: str, parts: list[str]) -> None:
    assert split("key", text) == parts


def test_every_combination_seed_by_seed() -> None:
    grid = combine(["norm=ln,dyt", "seed=0,1", "model.depth=3"])
    found = [(one.seed, dict(one.cell), one.cfg["norm"]["name"]) for one in grid.combinations]
    assert found == [(seed, {"norm": norm}, norm) for seed in (0, 1) for norm in ("ln", "dyt")]
    assert {one.cfg["model"]["depth"] for one in grid.combinations} == {3}
    assert len({one.name for one in grid.combinations}) == 4
    assert [grid.label(cell) for cell in grid.cells] == ["ln", "dyt"]


def test_a_list_is_one_value_and_lists_can_be_swept() -> None:
    grid = combine(["optim.betas=[0.9,0.99],[0.8,0.95]"])
    assert [one.cfg["optim"]["betas"] for one in grid.combinations] == [[0.9, 0.99], [0.8, 0.95]]
    assert grid.numeric == []


def test_what_an_option_has_no_key_for_is_run_once_without_it() -> None:
    grid = combine(["norm=dyt,ln", "norm.alpha0=0.5,1", "optim.lr=1e-3"])
    assert [grid.label(cell) for cell in grid.cells] == ["dyt, alpha0=0.5", "dyt, alpha0=1", "ln"]
    assert grid.notes == ["norm.alpha0: norm=ln has no such key, and is run without it"]
    assert (grid.numeric, grid.keys) == (["norm.alpha0"], ["norm", "norm.alpha0"])


def test_a_run_is_the_same_however_it_is_typed() -> None:
    def names(*argv: str) -> list[str]:
        return [one.name.rpartition("-")[2] for one in combine(argv).combinations]

    one = names("norm=dyt,ln", "optim.lr=0.002")
    assert names("optim.lr=2e-3", "norm=ln,dyt") == one[::-1]
    assert names("norm=dyt", "optim.lr=0.002,0.003")[0] == one[0]
    assert names("norm=dyt", "optim.lr=0.002", "data.workers=1", "logger=none") == one[:1]
    assert names("norm=dyt", "optim.lr=0.002", "trainer.max_epochs=3") != one[:1]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["norm=dyt,lm"], "norm=lm: there is no such norm"),
        (["norm=dyt,ln", "norm.alpha=0.5,1"], "norm.alpha: there is no such key"),
        (["norm=ln", "norm.alpha0=0.5,1"], "norm.alpha0: there is no such key"),
        (["seed=0,one"], "seed=one: expected a whole number"),
        (["seed=0,,1"], "seed=0,,1: there is a value missing between its commas"),
        (["seed=0,1,0"], "seed=0,1,0: 0 is there twice"),
        (["optim.lr=1e-3,0.001"], "optim.lr=1e-3 and optim.lr=0.001 are one and the same run"),
        (["norm=dyt,ln", "data.workers=0,2"], "norm=dyt data.workers=0 and norm=dyt data.workers=2 are one"),
        (["norm=dyt,ln", "resume=runs/x"], "resume=runs/x: compare.py places its runs itself"),
        (["norm"], "norm: expected group=option or key=value"),
    ],
)
def test_refusals(argv: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        combine(argv)
    assert words in str(caught.value)


def test_the_metric_is_the_tasks_unless_one_is_asked_for() -> None:
    grid = combine(["task.monitor=val/acc", "task.monitor_mode=max", "norm=dyt,ln"])
    assert tracked_metric(grid, "") == ("test/acc", True)
    assert tracked_metric(grid, "val/acc") == ("val/acc", True)
    assert tracked_metric(grid, "test/loss") == ("test/loss", False)
    assert tracked_metric(grid, "test/other:max") == ("test/other", True)
    for asked in ("test/other", "test/other:up", "acc"):
        with pytest.raises(UsageError, match="which way is better"):
            tracked_metric(grid, asked)
    mixed = combine(["task.monitor=val/acc,val/loss"])
    with pytest.raises(UsageError, match="metric=<tag> says what to compare"):
        tracked_metric(mixed, "")


def test_baseline() -> None:
    grid = combine(["norm=dyt,ln", "model.depth=2,4", "optim.lr=2,4"])
    assert choose_baseline(grid, "") == ("norm", "ln")
    assert choose_baseline(grid, "dyt") == ("norm", "dyt")
    assert choose_baseline(grid, "model.depth=4") == ("model.depth", "4")
    for asked in ("4", "rmsnorm", "norm=4"):
        with pytest.raises(UsageError, match=f"baseline={asked}: expected one of norm=dyt, norm=ln, model.depth=2"):
            choose_baseline(grid, asked)
    assert choose_baseline(combine(["model.depth=4,2"]), "") == ("model.depth", "4")
    assert choose_baseline(combine(["seed=0,1"]), "") is None


def test_a_cell_is_compared_to_the_baseline_that_is_like_it() -> None:
    grid = combine(["norm=dyt,ln", "norm.alpha0=0.5,1", "optim.lr=1e-3,1e-2"])
    comparison = Comparison(grid, {}, "test/loss", False, ("norm", "ln"))
    references = {grid.label(cell): grid.label(comparison.reference(cell) or ()) for cell in grid.cells}
    assert references == {
        **{f"dyt, alpha0={alpha0}, lr={lr}": f"ln, lr={lr}" for alpha0 in ("0.5", "1") for lr in ("1e-3", "1e-2")},
        **{f"ln, lr={lr}": f"ln, lr={lr}" for lr in ("1e-3", "1e-2")},
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.5, 1, 2], True), ([1e-4, 3e-4, 1e-3], True), ([1, 2, 3], False), ([0, 1, 10], False), ([1, 10], False)],
)
def test_values_that_grow_by_factors(values: list[float], expected: bool) -> None:
    assert is_geometric(values) is expected
