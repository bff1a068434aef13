"""Whole runs of an LLM."""

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import evaluate
from {{cookiecutter.package_name}}.callbacks.norm_monitor import input_sums
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.train import build_task, train

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
    with pytest.raises(UsageError, match=r"data\.context=32: the net reads at most 16 tokens at once"):
        evaluate.main([f"checkpoint={run}", "data.context=32"])


def test_what_watches_the_layers_makes_logits_in_chunks(tmp_path: Path) -> None:
    cfg = compose([*TINY.argv, "data.vocab_size=257", "model.loss_chunk=8"])
    task, widths = build_task(cfg), []
    task.net.lm_head.register_forward_pre_hook(lambda _, args: widths.append(len(args[0])))
    batch = tuple(torch.zeros(2, 4, 16, dtype=torch.long))
    assert set(input_sums(task.net, task.watched_inputs(batch))) == set(TINY.norms)
    assert widths == [8] * 8


def test_a_text_too_short_for_a_share_of_it(tmp_path: Path) -> None:
    """What a share of the default data is enough for is left to the default data."""
    (tmp_path / "text.txt").write_text("a line of text\n" * 300)
    argv = [*TINY.argv, "data=text", f"data.root={tmp_path}", "data.total_batch_size=8", f"runs={tmp_path / 'runs'}"]
    argv = [one for one in argv if not one.startswith("trainer.limit")] + ["trainer.max_epochs=1"]
    _, values = train(compose(argv))
    assert values["steps"] == 4050 // 16 // 8


def test_a_vocabulary_larger_than_the_datas(tmp_path: Path) -> None:
    """By a model's file of one's own: a multiple of 64 is quicker on a GPU."""
    cfg = compose([*TINY.argv, "trainer.max_epochs=1", "trainer.limit_train_batches=1", f"runs={tmp_path}"])
    OmegaConf.update(cfg, "model.vocab_size", 320)
    run, values = train(cfg)
    assert evaluate.main([f"checkpoint={run}"])["test/loss"] == pytest.approx(values["test/loss"])
    OmegaConf.update(cfg, "model.vocab_size", 256)
    with pytest.raises(UsageError, match=r"model\.vocab_size=256: the data have 257 tokens; choose as many, or more"):
        train(cfg)
