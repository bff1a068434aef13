"""Whole runs of an LLM."""

import math
from pathlib import Path

import pytest
import torch

import evaluate
from {{cookiecutter.package_name}}.callbacks.norm_monitor import input_sums
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.train import build_module

from ...runs import Start, Tiny
from .tiny import TINY


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
    with pytest.raises(UsageError, match=r"data\.context=32"):
        evaluate.main([f"checkpoint={run}", "data.context=32"])


def test_what_watches_the_layers_makes_logits_in_chunks(tmp_path: Path) -> None:
    cfg = compose([*TINY.argv, "data.vocab_size=257", "model.loss_chunk=8"])
    task, widths = build_module(cfg), []
    task.model.lm_head.register_forward_pre_hook(lambda _, args: widths.append(len(args[0])))
    batch = tuple(torch.zeros(2, 4, 16, dtype=torch.long))
    assert set(input_sums(task.model, task.hook_inputs(batch))) == set(TINY.norms)
    assert widths == [8] * 8
