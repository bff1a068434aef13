"""Whole runs of an LLM."""

import math

import pytest

import evaluate
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.norms import names

from .llm_tiny import TINY
from .runs import Start, Tiny, rows


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return TINY


@pytest.mark.parametrize("norm", [name for name in names() if name != "none"])
def test_every_norm_learns(start: Start, norm: str) -> None:
    run, values = start(
        f"norm={norm}", "trainer.limit_train_batches=40", "trainer.max_epochs=2", "monitor.every_n_steps=0"
    )
    losses = [value for _, tag, value in rows(run) if tag == "val/loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * math.log(257), "the loss of knowing nothing about bytes"
    # nearly a byte a token: ends of documents are none
    assert values["test/bits_per_byte"] == pytest.approx(values["test/loss"] / math.log(2), rel=1e-3)


def test_evaluation_on_windows_of_another_length(start: Start) -> None:
    run, _ = start("trainer.max_epochs=1", "trainer.limit_train_batches=1")
    assert evaluate.main([f"checkpoint={run}", "data.context=8"])["test/loss"] > 0
    with pytest.raises(UsageError, match=r"data\.context=32: the net reads at most 16 tokens at once"):
        evaluate.main([f"checkpoint={run}", "data.context=32"])
