"""Loggers: metrics.csv over a resume, images for those that take them."""

{% if cookiecutter.logger == "wandb" %}import re
{% endif -%}
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from {{cookiecutter.package_name}}.loggers import Events, MetricsCSV, build_loggers, log_image, read_metrics{% if cookiecutter.logger == "wandb" %}, wandb_id{% endif %}


class Album(Logger):
    """A logger that takes images as Lightning's WandbLogger does."""

    name, version = "album", "0"

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Any] = []

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        self.images.append((key, images, step))

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...


def test_images_go_to_every_logger_that_takes_them(tmp_path: Path) -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    events, album = Events(tmp_path / "run"), Album()
    log_image([events, MetricsCSV(tmp_path / "metrics.csv"), album], "picture", image, 7)
    assert album.images == [("picture", [image], 7)]
    events.save()
    written = EventAccumulator(str(tmp_path / "run"))
    written.Reload()
    (found,) = written.Images("picture")
    assert (found.step, found.height, found.width) == (7, 4, 5)


def test_metrics_after_the_resumed_step_are_dropped_and_none_comes_twice(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    first = MetricsCSV(file)
    for step in (1, 2, 3):
        first.log_metrics({"loss": step / 10, "epoch": 0}, step)
    first.finalize("success")
    resumed = MetricsCSV(file, resumed_step=2)
    resumed.log_metrics({"loss": 9.0, "acc": 0.5}, 2)  # of the step that it resumes from, as before
    resumed.log_metrics({"loss": float("nan")}, 3)
    resumed.finalize("success")
    resumed.log_metrics({"test/loss": 1.0}, 3)  # a later stage
    assert file.read_text().splitlines() == [
        *("step,tag,value", "1,loss,0.1", "2,loss,0.2", "2,acc,0.5", "3,loss,nan", "3,test/loss,1.0"),
    ]
    assert read_metrics(file)["acc"] == {2: 0.5}


@pytest.mark.parametrize("rest", [b"2,lo", b"2,loss,0.", b"\x00" * 50, b"\xff\xfe,\n,,,\n"], ids=repr)
def test_lines_that_are_damaged_are_dropped(tmp_path: Path, rest: bytes) -> None:
    file = tmp_path / "metrics.csv"
    file.write_bytes(b"step,tag,value\n1,loss,0.5\n" + rest)
    assert read_metrics(file) == {"loss": {1: 0.5}}
    resumed = MetricsCSV(file, resumed_step=2)
    resumed.log_metrics({"loss": 0.25}, 2)
    assert file.read_text() == "step,tag,value\n1,loss,0.5\n2,loss,0.25\n"


def test_an_unknown_logger_is_refused(tmp_path: Path) -> None:
    assert len(build_loggers(tmp_path, None, {"name": "none"})) == 2
    with pytest.raises(ValueError, match="wandbx"):
        build_loggers(tmp_path, None, {"name": "wandbx"})
{%- if cookiecutter.logger == "wandb" %}


def test_the_id_belongs_to_the_run_directory_and_not_to_its_name(tmp_path: Path) -> None:
    here, there = tmp_path / "here" / "mine", tmp_path / "there" / "mine"
    for run_dir in (here, there):
        run_dir.mkdir(parents=True)
    first = wandb_id(here)
    assert re.fullmatch("[0-9a-f]{16}", first or "")
    assert wandb_id(here) == first
    assert wandb_id(there) != first
{%- endif %}
