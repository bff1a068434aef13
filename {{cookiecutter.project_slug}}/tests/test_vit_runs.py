"""Whole runs of a ViT."""

import math

import pytest

from {{cookiecutter.package_name}} import fit
from {{cookiecutter.package_name}}.config import recompose
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.norms import names
from {{cookiecutter.package_name}}.runs import saved_checkpoint

from .runs import Start, Tiny, rows
from .vit_tiny import TINY


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return TINY


@pytest.mark.parametrize("norm", [name for name in names() if name != "none"])
def test_every_norm_learns(start: Start, norm: str) -> None:
    run, values = start(
        f"norm={norm}", "trainer.limit_train_batches=1.0", "trainer.max_epochs=4", "monitor.every_n_steps=0"
    )
    losses = [value for _, tag, value in rows(run) if tag == "val/loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * math.log(10), "the loss of knowing nothing about ten classes"
    assert values["test/acc"] > 0.4, "chance is 0.1"


def test_no_validation_images_no_best_checkpoint(start: Start) -> None:
    run, values = start("data.val_fraction=0.0", "trainer.max_epochs=1")
    assert "test/acc" in values
    assert saved_checkpoint(run)[0].name == "last.ckpt"
    file, config = saved_checkpoint(run)
    with pytest.raises(UsageError, match="split=val: the data have no such samples"):
        fit.evaluate(recompose(config, [], anew=(), free=()), file, "val")
