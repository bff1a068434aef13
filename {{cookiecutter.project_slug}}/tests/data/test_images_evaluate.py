"""Checkpoints on images that their nets were not made for."""

import pytest

import evaluate
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.config.errors import UsageError

from ..conftest import FAMILIES
from ..runs import Start

SEEING = [tiny for tiny in FAMILIES if compose(tiny.argv).data.module == "images"]


@pytest.mark.parametrize("tiny", SEEING, ids=str, indirect=True)
def test_images_of_another_size_or_colour(start: Start) -> None:
    run, _ = start("trainer.max_epochs=1", "trainer.limit_train_batches=1", "monitor.every_n_steps=0")
    for changed, was, found in [
        ("data.img_size=16", "img_size=8", "img_size=16"),
        ("data.in_chans=3", "in_chans=1", "in_chans=3"),
    ]:
        with pytest.raises(UsageError, match=f"^data: the model was trained on {was}, and these have {found}$"):
            evaluate.main([f"checkpoint={run}", changed])
