"""Whole runs of a ViT."""

import pytest

from {{cookiecutter.package_name}} import train as fit
from {{cookiecutter.package_name}}.config import recompose
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.runs import saved_checkpoint

from ...runs import Start, Tiny
from .tiny import TINY


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return TINY


def test_accuracy_is_beyond_chance(start: Start) -> None:
    _, values = start(*TINY.training)
    assert values["test/acc"] > 0.4, "chance is 0.1"


def test_no_validation_images_no_best_checkpoint(start: Start) -> None:
    run, values = start("data.val_fraction=0.0", "trainer.max_epochs=1")
    assert "test/acc" in values
    assert saved_checkpoint(run)[0].name == "last.ckpt"
    file, config = saved_checkpoint(run)
    with pytest.raises(UsageError, match="split=val: the data have no such samples"):
        fit.evaluate(recompose(config, [], anew=(), free=()), file, "val")
