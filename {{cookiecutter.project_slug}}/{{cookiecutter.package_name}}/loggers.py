"""The loggers of a run: TensorBoard, `metrics.csv`, and the one that `logger=` adds."""

{%- if cookiecutter.logger == "wandb" %}
import secrets
{%- endif %}
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger{% if cookiecutter.logger == "wandb" %}, WandbLogger{% endif %}
from lightning.pytorch.utilities import rank_zero_only

from .utils import write_text


def build_loggers(run_dir: Path, resumed_step: int | None, settings: Mapping[str, Any]) -> list[Logger]:
    """Returns TensorBoard, `metrics.csv`, and the logger of `configs/logger/<name>.yaml`.

    Args:
        resumed_step: the optimiser step of the checkpoint that training resumes from.
        settings: section `logger` of the config.

    Raises:
        ValueError: no such logger.
    """
    table = MetricsCSV(run_dir / "metrics.csv", resumed_step)
    loggers: list[Logger] = [Events(run_dir, resumed_step, table.written), table]
    match settings["name"]:
        case "none":
            pass
{%- if cookiecutter.logger == "wandb" %}
        case "wandb":
            loggers.append(wandb_logger(run_dir, settings))
{%- endif %}
        case name:
            raise ValueError(f"name={name}: there is no such logger")
    return loggers


def log_image(loggers: Iterable[Logger], tag: str, image: np.ndarray, step: int) -> None:
    """Sends an image of bytes (H, W, 3) to every logger that takes images: TensorBoard, and those with `log_image`."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, image, step, dataformats="HWC")
        elif hasattr(logger, "log_image"):
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
{%- if cookiecutter.logger == "wandb" %}


def wandb_logger(run_dir: Path, settings: Mapping[str, Any]) -> WandbLogger:
    return WandbLogger(
        project=settings["project"] or run_dir.resolve().parents[1].name,
        entity=settings["entity"],
        offline=settings["offline"],
        name=run_dir.name,
        id=wandb_id(run_dir),
        save_dir=run_dir,
        resume="allow",
    )


@rank_zero_only
def wandb_id(run_dir: Path) -> str | None:
    """Returns the run's id on the server, from `wandb_id.txt`, so that a resumed run continues there.

    A new id is random, because two machines may both have a run directory of this name. Returns None in all processes
    but the first.
    """
    file = run_dir / "wandb_id.txt"
    if not file.exists():
        file.write_text(f"{secrets.token_hex(8)}\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
{%- endif %}
