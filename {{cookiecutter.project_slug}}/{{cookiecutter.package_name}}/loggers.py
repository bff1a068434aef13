"""The loggers of a run: TensorBoard, `metrics.csv`, and the one that `logger=` adds."""

import csv
{%- if cookiecutter.logger == "wandb" %}
import secrets
{%- endif %}
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger{% if cookiecutter.logger == "wandb" %}, WandbLogger{% endif %}
from lightning.pytorch.utilities import rank_zero_only


def build_loggers(run_dir: Path, resumed_step: int | None, settings: Mapping[str, Any]) -> list[Logger]:
    """Returns TensorBoard, `metrics.csv`, and the logger of `configs/logger/<name>.yaml`.

    Args:
        resumed_step: the optimiser step of the checkpoint that training resumes from.
        settings: section `logger` of the config.

    Raises:
        ValueError: no such logger.
    """
    loggers: list[Logger] = [Events(run_dir, resumed_step), MetricsCSV(run_dir / "metrics.csv", resumed_step)]
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

    After a resume the curves continue: TensorBoard hides the old events of steps that are taken again. Lightning's
    `hparams.yaml` is left out, because the run has its `config.yaml`.
    """

    def __init__(self, run_dir: Path, resumed_step: int | None = None) -> None:
        purge = None if resumed_step is None else resumed_step + 1
        super().__init__(run_dir.parent, name=run_dir.name, version="", default_hp_metric=False, purge_step=purge)

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()


class MetricsCSV(Logger):
    """Appends `step,tag,value` rows to a file; `read_metrics` reads it.

    `pandas.read_csv(file).pivot(index="step", columns="tag", values="value")` makes a column of every tag. After a
    resume, rows after `resumed_step` are dropped and the others stay, whereas Lightning's CSVLogger starts a new file.
    """

    def __init__(self, path: Path, resumed_step: int | None = None) -> None:
        super().__init__()
        self.path, self.resumed_step = path, resumed_step
        self._file: TextIO | None = None
        self._written: set[tuple[int | None, str]] = set()

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
        # Lightning adds the epoch to every call
        new = (tag for tag in metrics if tag != "epoch" and (step, tag) not in self._written)
        rows = [(step, tag, float(metrics[tag])) for tag in new]
        csv.writer(self._file, lineterminator="\n").writerows(rows)
        self._file.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> TextIO:
        if self.resumed_step is not None and self.path.exists():
            self._drop_rows_after(self.resumed_step)
        self.resumed_step = None  # a later stage (test after fit) appends
        file = self.path.open("a", newline="", encoding="utf-8")
        if file.tell() == 0:
            csv.writer(file, lineterminator="\n").writerow(("step", "tag", "value"))
        return file

    def _drop_rows_after(self, step: int) -> None:
        with self.path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        kept = [row for row in rows if int(row[0]) <= step]
        shorter = self.path.with_suffix(".part")
        with shorter.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *kept])
        shorter.replace(self.path)
        # the resumed step, and a validation that belongs to it, may be logged again
        self._written = {(int(at), tag) for at, tag, _ in kept if int(at) >= step - 1}


def read_metrics(file: Path) -> dict[str, dict[int, float]]:
    """Returns the values of a `metrics.csv` by tag and step; of several at one step the last one."""
    metrics: dict[str, dict[int, float]] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            metrics.setdefault(row["tag"], {})[int(row["step"])] = float(row["value"])
    return metrics
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
