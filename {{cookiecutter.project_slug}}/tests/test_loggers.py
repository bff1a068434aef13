"""Loggers: metrics.csv over a resume, images for those that take them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.loggers import Events, MetricsCSV, build_loggers, log_image, read_metrics


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


class Server(Logger):
    """A logger of a user's own, which takes the run's directory and name."""

    version = "0"

    def __init__(self, save_dir: Path, name: str, rate: float = 1.0) -> None:
        super().__init__()
        self.folder, self._name, self.rate = save_dir, name, rate

    @property
    def name(self) -> str:
        return self._name

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...


def test_loggers_are_those_of_the_config_and_the_table(tmp_path: Path) -> None:
    own = [f"logger.mine.class_path={Server.__module__}.Server", "logger.mine.init_args.rate=2"]
    cfg = compose(["logger=tensorboard", *own])
    events, mine, table = build_loggers(tmp_path / "run", None, plain(cfg.logger))
    assert isinstance(events, Events)
    assert isinstance(mine, Server)
    assert (mine.folder, mine.name, mine.rate) == (tmp_path / "run", "run", 2)
    assert isinstance(table, MetricsCSV)
    assert [type(one) for one in build_loggers(tmp_path, None, plain(compose(["logger=none"]).logger))] == [MetricsCSV]


@pytest.mark.parametrize(
    ("path", "word"), [("nowhere.Class", "nowhere"), ("pathlib.PurePath", "Logger"), ("Class", "module.Class")]
)
def test_a_logger_that_cannot_be_made_is_one_line(tmp_path: Path, path: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        build_loggers(tmp_path, None, {"mine": {"class_path": path}})
    assert str(caught.value).startswith("logger.mine: ")


@pytest.mark.parametrize("name", ["wandb", "mlflow", "comet"])
def test_a_logger_whose_library_is_missing_is_one_line(tmp_path: Path, name: str) -> None:
    entries = plain(compose([f"logger={name}"]).logger)
    if find_spec({"comet": "comet_ml"}.get(name, name)) is not None:
        pytest.skip(f"{name} is installed")
    with pytest.raises(UsageError, match=f"logger.{name}") as caught:
        build_loggers(tmp_path, None, entries)
    assert "\n" not in str(caught.value)


def test_wandb_offline_continues_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    entries = plain(compose(["logger=wandb", "logger.wandb.init_args.offline=true"]).logger)
    (tmp_path / "run").mkdir()
    ids = []
    for _ in range(2):
        logger, table = build_loggers(tmp_path / "run", None, entries)
        logger.log_metrics({"val/loss": 1.0}, 3)
        log_image([logger, table], "picture", np.zeros((4, 5, 3), dtype=np.uint8), 3)
        ids.append(logger.experiment.id)  # type: ignore[attr-defined]
        logger.experiment.finish()  # type: ignore[attr-defined]
    assert ids[0] == ids[1]


def test_mlflow_files_continue_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    entries = plain(compose(["logger=mlflow"]).logger)
    (tmp_path / "run").mkdir()
    ids = []
    for step in range(2):
        logger, table = build_loggers(tmp_path / "run", None, entries)
        logger.log_metrics({"val/loss": 1.0}, step)
        log_image([logger, table], "a picture", np.zeros((4, 5, 3), dtype=np.uint8), step)
        ids.append(logger.run_id)  # type: ignore[attr-defined]
    assert ids[0] == ids[1]
    assert len(list((tmp_path / "mlruns").rglob("val/loss"))) == 1
    assert len(list((tmp_path / "mlruns").rglob("*picture*.png"))) == 2
