"""Whole runs of an LLM."""

import math

import pytest

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
