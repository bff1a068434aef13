"""Checkpoints on data that they were not trained on."""

from types import SimpleNamespace

import pytest

import evaluate
from {{cookiecutter.package_name}} import fit
from {{cookiecutter.package_name}}.errors import UsageError

from .conftest import each_family
from .runs import Start


@each_family
def test_data_that_differ_in_what_the_net_was_made_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any key that the data find and the net has; it stands for a number of classes or the size of a vocabulary."""
    run, _ = start("trainer.max_epochs=1", "trainer.limit_train_batches=1")
    monkeypatch.setattr(fit, "build_data", lambda cfg: SimpleNamespace(found={"depth": 3, "unknown": 1}))
    with pytest.raises(UsageError, match="the net was trained on depth=2, and these have depth=3"):
        evaluate.main([f"checkpoint={run}"])
