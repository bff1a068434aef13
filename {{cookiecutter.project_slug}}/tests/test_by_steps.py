"""Training that is counted in optimiser steps: validation, checkpoints, lines, and what is refused."""

from typing import Any

import pytest

from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.models.base import BaseModule

from .conftest import each_family
from .runs import Start, Tiny, load, rows

TEN_STEPS = ["trainer.max_epochs=-1", "trainer.max_steps=10", "trainer.limit_val_batches=2"]


def validations(run: Any) -> list[int]:
    """The optimiser steps after which the run validated; metrics are logged at the step before."""
    return [step + 1 for step, tag, _ in rows(run) if tag == "val/loss"]


@pytest.mark.parametrize("accumulate", [1, 2])
@each_family
def test_validation_comes_every_so_many_steps_and_at_the_end(
    start: Start, tiny: Tiny, accumulate: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(BaseModule, "on_validation_start", lambda task: seen.append(task.trainer.global_step))
    parts = [f"data.batch_size={32 // accumulate}", f"trainer.limit_train_batches={6 * accumulate}"]
    run, values = start(*TEN_STEPS, *parts, "trainer.val_every_n_steps=4")
    assert seen == validations(run) == [4, 8, 10]
    assert [step for step, tag, _ in rows(run) if tag == f"throughput/{tiny.unit}_per_second"] == [4, 8, 10]
    assert (values["steps"], values["epochs"]) == (10, 1.667)
    assert values[f"{tiny.unit}_per_second"] > 0
    assert "mfu" not in values, "a CPU has no known peak rate"
    last, best = (load(run / "checkpoints" / f"{name}.ckpt") for name in ("last", "best"))
    assert last["global_step"] == 10
    assert best["global_step"] in seen
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("step", "epoch"))]
    assert [line[:10] for line in lines] == ["step  4/10", "step  8/10", "step 10/10"]
    assert all(f"{tiny.unit}/s" in line and "train/loss" in line and "val/loss" in line for line in lines)


def test_the_last_step_is_validated_once(start: Start) -> None:
    run, _ = start(*TEN_STEPS, "trainer.val_every_n_steps=5")
    assert validations(run) == [5, 10]


def test_steps_may_be_more_than_an_epoch_has(start: Start) -> None:
    run, _ = start(*TEN_STEPS, "trainer.val_every_n_steps=8")
    assert validations(run) == [8, 10]


def test_epochs_may_bound_a_run_that_validates_by_steps(start: Start) -> None:
    run, values = start("trainer.max_epochs=2", "trainer.val_every_n_steps=5")
    assert validations(run) == [5, 10, 12]
    assert values["epochs"] == 2


def test_a_run_that_ends_within_an_epoch_is_validated(start: Start) -> None:
    run, values = start("trainer.max_epochs=2", "trainer.max_steps=8")
    assert validations(run) == [6, 8]
    assert values["epochs"] == 1.333


def test_a_run_without_validation_is_reported_as_often(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = start(*TEN_STEPS, "trainer.val_every_n_steps=4", "trainer.limit_val_batches=0")
    assert validations(run) == []
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("step", "epoch"))]
    assert [line[:10] for line in lines] == ["step  4/10", "step  8/10", "step 10/10"]
    assert load(run / "checkpoints" / "last.ckpt")["global_step"] == 10


def test_a_part_of_a_step_is_refused(start: Start) -> None:
    with pytest.raises(UsageError, match="limit_train_batches=5"):
        start("trainer.val_every_n_steps=2", "data.batch_size=16", "trainer.limit_train_batches=5")
