"""The loggers of a run: `metrics.csv`, and those that `logger=` picks."""

import json
import os
import secrets
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from .config.entries import entry_errors, instantiate, load_class
from .utils import write_text

IDS = "logger_ids.json"  # in a run: its identities on servers, which a resumed run continues


def build_loggers(run_dir: Path, resumed_step: int | None, entries: Mapping[str, Any]) -> list[Logger]:
    """Returns the loggers of a config, with `metrics.csv` last.

    Args:
        resumed_step: the optimiser step of the checkpoint that training resumes from.
        entries: section `logger`: import paths of classes, with their arguments.

    Raises:
        UsageError: there is no such class, its library is missing, or it does not take the arguments.
    """
    table = MetricsCSV(run_dir / "metrics.csv", resumed_step)
    ids = json.loads((run_dir / IDS).read_text(encoding="utf-8")) if (run_dir / IDS).exists() else {}
    loggers = []
    for name, entry in entries.items():
        with entry_errors(f"logger.{name}"):
            found = load_class(entry)
        of_run: dict[str, Any] = {
            **{"run_dir": run_dir, "resumed_step": resumed_step, "written": table.written},
            **{"name": run_dir.name, "run_name": run_dir.name, "save_dir": run_dir, "id": ids.get(name)},
            **{"experiment_key": ids.get(name), "run_id": ids.get(name)},
        }
        if issubclass(found, WandbLogger | CometLogger) and name not in ids:  # MLflow makes its own
            ids[name] = of_run["id"] = of_run["experiment_key"] = secrets.token_hex(16)
        if issubclass(found, MLFlowLogger):
            of_run["save_dir"] = str(run_dir.parent / "mlruns")
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # its other local store needs a database
        arguments = {key: value for key, value in of_run.items() if key in signature(found).parameters}
        if issubclass(found, WandbLogger):
            arguments["resume"] = "allow"
        loggers.append(instantiate(f"logger.{name}", entry, Logger, **arguments))
        if issubclass(found, MLFlowLogger) and name not in ids:
            with entry_errors(f"logger.{name}"):
                ids[name] = loggers[-1].run_id
    _save_ids(run_dir / IDS, ids)
    return [*loggers, table]


@rank_zero_only
def _save_ids(file: Path, ids: Mapping[str, str | None]) -> None:
    if ids:
        write_text(file, json.dumps(ids))


def log_image(loggers: Iterable[Logger], tag: str, image: np.ndarray, step: int) -> None:
    """Sends an image of bytes (H, W, 3) to every logger that takes images."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, image, step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, image, key=tag.replace(" ", "_"), step=step)
        elif isinstance(logger, CometLogger):
            logger.experiment.log_image(image, name=tag, step=step)
        elif hasattr(logger, "log_image"):  # Weights & Biases
            logger.log_image(tag, [image], step)


class Events(TensorBoardLogger):
    """TensorBoard's event files, in the run directory itself.

    After a resume the curves continue: TensorBoard hides the old events of later steps. Lightning's `hparams.yaml` is
    left out because the run has its `config.yaml`, and its curve "epoch" because steps are counted.

    Args:
        resumed_step: the optimiser step of the checkpoint that training resumes from.
        written: steps and tags that are in the files already.
    """

    def __init__(
        self, run_dir: Path, resumed_step: int | None = None, written: Collection[tuple[int, str]] = ()
    ) -> None:
        purge = None if resumed_step is None else resumed_step + 1
        super().__init__(run_dir.parent, name=run_dir.name, version="", default_hp_metric=False, purge_step=purge)
        self.written = written

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(_new(metrics, step, self.written), step)

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()


class MetricsCSV(Logger):
    """Appends `step,tag,value` rows to a file; `read_metrics` reads it.

    `pandas.read_csv(file).pivot(index="step", columns="tag", values="value")` makes a column of every tag. After a
    resume, rows after `resumed_step` are dropped and the others stay, whereas Lightning's CSVLogger starts a new file.

    Attributes:
        written: steps and tags of the resumed step, and of a validation that belongs to it, which may be logged again.
    """

    def __init__(self, path: Path, resumed_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self._file: TextIO | None = None
        self._kept: list[tuple[int, str, float]] = []
        if resumed_step is not None and path.exists():
            self._kept = [row for row in read_rows(path) if row[0] <= resumed_step]
        again = -1 if resumed_step is None else resumed_step - 1
        self.written = {(step, tag) for step, tag, _ in self._kept if step >= again}

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: they are in the run's `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._file is None:
            self._file = self._open()
        for tag, value in _new(metrics, step, self.written).items():
            self._file.write(f"{step},{tag},{float(value)}\n")
        self._file.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> TextIO:
        if self._kept or not self.path.exists():
            rows = "".join(f"{step},{tag},{value}\n" for step, tag, value in self._kept)
            write_text(self.path, f"step,tag,value\n{rows}")
            self._kept = []  # a later stage (test after fit) appends
        return self.path.open("a", newline="", encoding="utf-8")


def read_metrics(file: Path) -> dict[str, dict[int, float]]:
    """Returns the values of a `metrics.csv` by tag and step; of several at one step the last one."""
    metrics: dict[str, dict[int, float]] = {}
    for step, tag, value in read_rows(file):
        metrics.setdefault(tag, {})[step] = value
    return metrics


def read_rows(file: Path) -> list[tuple[int, str, float]]:
    """Returns step, tag and value of each line of a `metrics.csv`; damaged lines, as of a full disk, are left out."""
    rows = []
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n")[1:-1]:  # the last one has no end
        parts = line.split(",")
        with suppress(ValueError):
            step, tag, value = parts
            rows.append((int(step), tag, float(value)))
    return rows


def _new(
    metrics: Mapping[str, float], step: int | None, written: Collection[tuple[int | None, str]]
) -> dict[str, float]:
    """Returns the metrics that are not written yet, without the epoch, which Lightning adds to every call."""
    return {tag: value for tag, value in metrics.items() if tag != "epoch" and (step, tag) not in written}
