"""Whole runs of an LLM."""

import math

import pytest

import evaluate
from {{cookiecutter.package_name}}.errors import UsageError

from .llm_tiny import TINY
from .runs import Start, Tiny


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return TINY


def test_bits_per_byte_are_the_loss_in_other_units(start: Start) -> None:
    _, values = start("trainer.max_epochs=1")
    # nearly a byte a token: ends of documents are none
    assert values["test/bits_per_byte"] == pytest.approx(values["test/loss"] / math.log(2), rel=1e-3)


def test_evaluation_on_windows_of_another_length(start: Start) -> None:
    run, _ = start("trainer.max_epochs=1", "trainer.limit_train_batches=1")
    assert evaluate.main([f"checkpoint={run}", "data.context=8"])["test/loss"] > 0
    with pytest.raises(UsageError, match=r"data\.context=32: the net reads at most 16 tokens at once"):
        evaluate.main([f"checkpoint={run}", "data.context=32"])
