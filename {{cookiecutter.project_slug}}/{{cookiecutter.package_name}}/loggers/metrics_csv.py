"""All scalars of a run in one plain file."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class MetricsCSV(Logger):
    """Appends `step,tag,value` rows to a file.

    `pandas.read_csv(file).pivot(index="step", columns="tag", values="value")` spreads them. Lightning's own CSVLogger
    starts its file anew on a resume. Here rows after `resumed_step` go, and the rest stays.
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
        """They stand in the run's `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._file is None:
            self._file = self._open()
        # Lightning adds the epoch to every call
        new = (tag for tag in metrics if tag != "epoch" and (step, tag) not in self._written)
        rows = [(step, tag, float(metrics[tag])) for tag in new]
        csv.writer(self._file, lineterminator="\n").writerows(rows)
        self._file.flush()

    def _open(self) -> TextIO:
        if self.resumed_step is not None and self.path.exists():
            self._drop_rows_after(self.resumed_step)
        self.resumed_step = None  # a later stage (test after fit) goes on at the end
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
        # what was logged at the step that the run goes on from, or in a validation after it, may be logged there again
        self._written = {(int(at), tag) for at, tag, _ in kept if int(at) >= step - 1}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
