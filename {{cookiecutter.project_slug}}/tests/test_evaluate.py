"""Checkpoints on data that they were not trained on."""

from types import SimpleNamespace

import pytest
import torch

import evaluate
from {{cookiecutter.package_name}} import train as fit
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.runs import evaluable

from .conftest import each_family
from .runs import Start, load


@each_family
def test_data_that_differ_in_what_the_net_was_made_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any key that the data find; it stands for a number of classes or the size of a vocabulary."""
    run, _ = start("trainer.max_epochs=1", "trainer.limit_train_batches=1")
    monkeypatch.setattr(fit, "build_data", lambda cfg: SimpleNamespace(found={"module": "other", "unknown": 1}))
    with pytest.raises(UsageError, match="module=other"):
        evaluate.main([f"checkpoint={run}"])


def test_data_of_another_kind(start: Start) -> None:
    run, _ = start("trainer.max_epochs=1", "trainer.limit_train_batches=1")
    file = run / "checkpoints" / "best.ckpt"
    checkpoint = load(file)
    checkpoint["config"]["data"]["module"] = "another"
    torch.save(checkpoint, file)
    with pytest.raises(UsageError, match="trained on another"):
        evaluate.main([f"checkpoint={run}", f"data={compose([]).defaults.data}"])


def test_how_a_net_was_trained_stays() -> None:
    """And what chose its best checkpoint may follow what is measured."""
    task = {"name": "other", "rate": 0.1, "monitor": "val/loss", "measured": {"n": 100}}
    free = evaluable({"task": task})
    assert {"data", "trainer", "task.measured", "task.monitor"} <= set(free)
    assert not {"task", "task.name", "task.rate"} & set(free)
