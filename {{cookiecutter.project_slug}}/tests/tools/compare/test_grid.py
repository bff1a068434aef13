"""Combinations of values, and which of them are the same run."""

import pytest

from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.tools.compare.grid import choose_baseline, choose_metric, combine, split
from {{cookiecutter.package_name}}.tools.compare.results import Comparison


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("dyt", ["dyt"]),
        ("0, 1 ,2", ["0", "1", "2"]),
        ("", [""]),
        ("[0.9,0.99]", ["[0.9,0.99]"]),
        ("[0.9,0.99],[0.9,0.95]", ["[0.9,0.99]", "[0.9,0.95]"]),
        ("${by_width:1,2,3},4", ["${by_width:1,2,3}", "4"]),
    ],
)
def test_commas_outside_brackets_separate_values(text: str, parts: list[str]) -> None:
    assert split("key", text) == parts


def test_every_combination_seed_by_seed() -> None:
    grid = combine(["norm=ln,dyt", "seed=0,1", "model.depth=3"])
    found = [(one.seed, dict(one.cell), one.cfg["norm"]["name"]) for one in grid.combinations]
    assert found == [(seed, {"norm": norm}, norm) for seed in (0, 1) for norm in ("ln", "dyt")]
    assert {one.cfg["model"]["depth"] for one in grid.combinations} == {3}
    assert len({one.name for one in grid.combinations}) == 4
    assert [grid.label(cell) for cell in grid.cells] == ["ln", "dyt"]


def test_lists_can_be_swept() -> None:
    grid = combine(["optim.betas=[0.9,0.99],[0.8,0.95]"])
    assert [one.cfg["optim"]["betas"] for one in grid.combinations] == [[0.9, 0.99], [0.8, 0.95]]
    assert grid.numeric == []


def test_a_key_that_an_option_lacks_is_left_out_there() -> None:
    grid = combine(["norm=dyt,ln", "norm.alpha0=0.5,1", "optim.lr=1e-3"])
    assert [grid.label(cell) for cell in grid.cells] == ["dyt, alpha0=0.5", "dyt, alpha0=1", "ln"]
    assert len(grid.notes) == 1
    assert (grid.numeric, grid.keys) == (["norm.alpha0"], ["norm", "norm.alpha0"])


def test_a_run_is_the_same_however_it_is_typed() -> None:
    def digests(*argv: str) -> list[str]:
        return [one.digest for one in combine(argv).combinations]

    one = digests("norm=dyt,ln", "optim.lr=0.002")
    assert digests("optim.lr=2e-3", "norm=ln,dyt") == one[::-1]
    assert digests("norm=dyt", "optim.lr=0.002,0.003")[0] == one[0]
    assert digests("norm=dyt", "optim.lr=0.002", "data.workers=1", "logger=none") == one[:1]
    assert digests("norm=dyt", "optim.lr=0.002", "trainer.max_epochs=3") != one[:1]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["norm=dyt,lm"], "norm=lm"),
        (["norm=dyt,ln", "norm.alpha=0.5,1"], "norm.alpha"),
        (["norm=ln", "norm.alpha0=0.5,1"], "norm.alpha0"),
        (["seed=0,one"], "seed=one"),
        (["seed=0,,1"], "missing"),
        (["seed=0,1,0"], "twice"),
        (["optim.lr=1e-3,0.001"], "same run"),
        (["norm=dyt,ln", "data.workers=0,2"], "same run"),
        (["norm=dyt,ln", "resume=runs/x"], "resume=runs/x"),
        (["norm"], "key=value"),
    ],
)
def test_refused_arguments(argv: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        combine(argv)
    assert words in str(caught.value)


def test_the_metric_is_the_monitored_one_unless_another_is_asked_for() -> None:
    grid = combine(["task.monitor=val/acc", "task.monitor_mode=max", "norm=dyt,ln"])
    assert choose_metric(grid, "") == ("test/acc", True)
    assert choose_metric(grid, "val/acc") == ("val/acc", True)
    assert choose_metric(grid, "test/loss") == ("test/loss", False)
    assert choose_metric(grid, "test/other:max") == ("test/other", True)
    for asked in ("test/other", "test/other:up", "acc"):
        with pytest.raises(UsageError):
            choose_metric(grid, asked)
    with pytest.raises(UsageError):
        choose_metric(combine(["task.monitor=val/acc,val/loss"]), "")


def test_baseline() -> None:
    grid = combine(["norm=dyt,ln", "model.depth=2,4", "optim.lr=2,4"])
    assert choose_baseline(grid, "") == ("norm", "ln")
    assert choose_baseline(grid, "dyt") == ("norm", "dyt")
    assert choose_baseline(grid, "model.depth=4") == ("model.depth", "4")
    for asked in ("4", "rmsnorm", "norm=4"):
        with pytest.raises(UsageError, match="norm=dyt, norm=ln"):
            choose_baseline(grid, asked)
    assert choose_baseline(combine(["model.depth=4,2"]), "") == ("model.depth", "4")
    assert choose_baseline(combine(["seed=0,1"]), "") is None


def test_the_reference_agrees_in_all_other_keys() -> None:
    grid = combine(["norm=dyt,ln", "norm.alpha0=0.5,1", "optim.lr=1e-3,1e-2"])
    comparison = Comparison(grid, {}, "test/loss", False, ("norm", "ln"))
    references = {grid.label(cell): grid.label(comparison.reference(cell) or ()) for cell in grid.cells}
    assert references == {
        **{f"dyt, alpha0={alpha0}, lr={lr}": f"ln, lr={lr}" for alpha0 in ("0.5", "1") for lr in ("1e-3", "1e-2")},
        **{f"ln, lr={lr}": f"ln, lr={lr}" for lr in ("1e-3", "1e-2")},
    }
