"""alpha of every layer, and what the layers are fed and make of it, while the net trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from ..errors import Diverged, require
from ..models.base import Task
from ..norms import PointwiseNorm
from ..utils import write_png
from .norm_charts import layout
from .norm_curves import Array, Cloud, chosen_layers, clouds, fit
from .norm_statistics import gradient_readings, input_readings, labels, named_norms, norm_sums, scalar_readings
from .norm_warnings import NormWarnings


class NormMonitor(L.Callback):
    """Every `every_n_steps` optimiser steps and at the end of training, per norm layer: `alpha/<layer>` and
    `shift/<layer>` where it has them, `input_std/<layer>`, `inverse_std/<layer>`, `saturated/<layer>`, the share of its
    inputs with |alpha x + shift| > 2, and `alpha_grad/<layer>`, the size of alpha's gradient at that step.

    The inputs are those of one forward pass in evaluation mode on the first `samples` of the batch at hand, of all
    ranks together. In a net whose norms stand before its blocks' parts `input_std` is the residual stream's by depth;
    where no norm sees what leaves the last block, `output_std/<block>` adds that.

    `alpha_vs_inverse_std/correlation` is Pearson's over the layers, of log |alpha| and log 1/std: alpha = c/std is a
    straight line there, and a layer counts by its ratio to others, not by its size or its rank alone.

    At the first look, the 16th, the 64th, ... and at the end come pictures (TensorBoard's Images): the clouds of
    the `curves` layers, with `fit_tanh/<layer>` and `fit_line/<layer>`, R^2 of what fits those that have no curve of
    their own; alpha over depth and step; at the end alpha against 1/std. Custom Scalars group all that is logged.

    Args:
        every_n_steps: 0 turns the monitor off.
        samples: per device; clouds are of the first one's.
        curves: layers, see `chosen_layers`; empty for none.
        folder: where the pictures are written too, as PNG; None for nowhere.
    """

    def __init__(
        self, every_n_steps: int = 50, samples: int = 16, curves: str = "", folder: Path | None = None
    ) -> None:
        require(every_n_steps >= 0, f"monitor.every_n_steps={every_n_steps}: expected 0 (off) or more")
        require(samples >= 1, f"monitor.samples={samples}: expected at least 1")
        self.every_n_steps, self.samples, self.curves, self.folder = every_n_steps, samples, curves, folder
        self.layers: list[str] = []  # all norms, in the order of execution
        self.steps: list[int] = []
        self.alphas: list[dict[str, float]] = []  # by tag, one row a step
        self.inverse_stds: list[dict[str, float]] = []  # of the layers with alpha, likewise; empty where none was seen
        self.warnings = NormWarnings()
        self._graded = -1  # the last step whose gradients are logged
        self._charted = False
        self._batch: Any = None  # the last one, between two steps

    def state_dict(self) -> dict[str, Any]:
        return {
            "layers": self.layers,
            "steps": self.steps,
            "alphas": self.alphas,
            "inverse_stds": self.inverse_stds,
            "graded": self._graded,
            "warnings": self.warnings.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rows = ("layers", "steps", "alphas", "inverse_stds")
        self.layers, self.steps, self.alphas, self.inverse_stds = (list(state_dict[key]) for key in rows)
        self._graded = state_dict["graded"]
        self.warnings.load_state_dict(state_dict["warnings"])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = None
        step = trainer.global_step  # the same for several batches while gradients are accumulated
        if self.every_n_steps and step % self.every_n_steps == 0 and self.steps[-1:] != [step]:
            self._look(trainer, pl_module, batch)
            if _seldom(len(self.steps)):
                self._draw(trainer, pl_module, batch)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        step = trainer.global_step
        if self.every_n_steps and self.steps[-1:] == [step] and self._graded != step:
            assert isinstance(pl_module, Task)
            self._graded = step
            values = gradient_readings(pl_module.net, self.layers)
            self._log(trainer, values)
            self._tell(trainer, self.warnings.of_gradients(values))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every_n_steps:
            self._batch = batch  # it may be the last

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every_n_steps and self.steps:
            if self.steps[-1] != trainer.global_step:
                self._look(trainer, pl_module, self._batch)
            self._draw(trainer, pl_module, self._batch)
            self._draw_ways(trainer)
        self._batch = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Diverged) and self.steps:
            self._draw(trainer, pl_module, None)  # of what such a net makes of a batch there is nothing to draw
            self._draw_ways(trainer)

    def _look(self, trainer: L.Trainer, task: L.LightningModule, batch: Any) -> None:
        """`batch` is None where a resumed run had but a validation left: then the alphas are all there is to see."""
        assert isinstance(task, Task)
        totals: dict[str, list[float]] = {}
        if batch is not None:
            with trainer.strategy.precision_plugin.forward_context():
                sums = norm_sums(task.net, self._inputs(task, batch))
            if not sums:
                return
            rows = trainer.strategy.reduce(torch.stack(list(sums.values())), reduce_op="sum")
            totals = dict(zip(sums, rows.tolist(), strict=True))
            norms = set(named_norms(task.net))
            self.layers = [name for name in sums if name in norms]
        values = scalar_readings(task.net, self.layers)
        alphas = {tag: value for tag, value in values.items() if tag.startswith("alpha/")}
        inverse: dict[str, float] = {}
        if totals:
            values |= input_readings(self.layers, totals, {tag.partition("/")[2] for tag in alphas})
            inverse = {tag: values[tag.replace("alpha", "inverse_std", 1)] for tag in alphas}
            if (r := correlation(alphas, inverse)) is not None:
                values["alpha_vs_inverse_std/correlation"] = r
        self._log(trainer, values)
        if not self._charted:
            self._chart(trainer, task, {tag.partition("/")[0] for tag in values})
        self.steps.append(trainer.global_step)
        self.alphas.append(alphas)
        self.inverse_stds.append(inverse)
        self._tell(trainer, self.warnings.of_readings(trainer.global_step, values, self.alphas[0]))

    def _draw(self, trainer: L.Trainer, task: L.LightningModule, batch: Any) -> None:
        """All ranks run the net, since under FSDP none can alone; the first draws."""
        assert isinstance(task, Task)
        if batch is not None and (chosen := chosen_layers(self.curves, self.layers)):
            with trainer.strategy.precision_plugin.forward_context():
                found = clouds(task.net, self._inputs(task, batch), chosen if trainer.is_global_zero else [])
            if found:
                self._draw_clouds(trainer, found)
        if not trainer.is_global_zero or len(self.steps) < 2 or not self.alphas[-1]:
            return
        from ..figures import alpha_heat_map  # imports matplotlib

        self._show(trainer, "alpha", "alpha over depth and step", alpha_heat_map(self.steps, self.alphas))

    def _draw_ways(self, trainer: L.Trainer) -> None:
        rows = zip(self.alphas, self.inverse_stds, strict=True)
        seen = [row for row, pair in enumerate(rows) if pair[1] and np.isfinite(_logs(*pair)).all()]  # or has diverged
        if not trainer.is_global_zero or len(seen) < 2:
            return
        from ..figures import alpha_against_inverse_std

        steps = [self.steps[row] for row in seen]
        alphas, inverse = ([all_rows[row] for row in seen] for all_rows in (self.alphas, self.inverse_stds))
        picture = alpha_against_inverse_std(steps, alphas, inverse, correlation(alphas[-1], inverse[-1]))
        self._show(trainer, "alpha_vs_inverse_std", "alpha against 1 over std", picture)

    def _draw_clouds(self, trainer: L.Trainer, found: Mapping[str, Cloud]) -> None:
        from ..figures import curves

        named = dict(zip(self.layers, labels(self.layers), strict=True))
        shown = {named[layer]: (cloud, fit(cloud) if cloud.curve is None else None) for layer, cloud in found.items()}
        values: dict[str, float] = {}
        for label, (_, fitted) in shown.items():
            if fitted is not None:
                values |= {f"fit_tanh/{label}": fitted.r2, f"fit_line/{label}": fitted.r2_line}
        self._log(trainer, values)
        self._show(trainer, "curves", "output against input", curves(trainer.global_step, shown))

    def _inputs(self, task: Task, batch: Any) -> list[Any]:
        return [x[: self.samples] if isinstance(x, Tensor) else x for x in task.watched_inputs(batch)]

    def _chart(self, trainer: L.Trainer, task: Task, quantities: set[str]) -> None:
        self._charted = True
        drawn = [task.net.get_submodule(layer) for layer in chosen_layers(self.curves, self.layers)]
        fitted = any(not isinstance(norm, PointwiseNorm) for norm in drawn)
        charts = layout(quantities, fitted, getattr(trainer.checkpoint_callback, "monitor", None))
        for logger in trainer.loggers if trainer.is_global_zero else []:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars(charts)

    def _log(self, trainer: L.Trainer, values: Mapping[str, float]) -> None:
        for logger in trainer.loggers if values else []:
            logger.log_metrics(dict(values), trainer.global_step)

    def _tell(self, trainer: L.Trainer, lines: list[str]) -> None:
        for line in lines if trainer.is_global_zero else []:
            print(f"warning: step {trainer.global_step}: {line} (README, Reading alpha)", flush=True)

    def _show(self, trainer: L.Trainer, file: str, title: str, picture: Tensor) -> None:
        if self.folder is not None:
            write_png(self.folder / f"{file}.png", picture)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(title, picture, trainer.global_step)


def correlation(alphas: Mapping[str, float], inverse_stds: Mapping[str, float]) -> float | None:
    """Pearson's of log |alpha| and log 1/std over the layers, in the same order; None where one of them is constant."""
    if len(alphas) < 2:
        return None
    logs = _logs(alphas, inverse_stds)
    if not np.isfinite(logs).all() or logs.std(axis=1).min() < 1e-9:  # what has diverged has none
        return None
    return float(np.corrcoef(logs[0], logs[1])[0, 1])


def _logs(alphas: Mapping[str, float], inverse_stds: Mapping[str, float]) -> Array:
    """Of both, their sizes, (2, layers)."""
    with np.errstate(all="ignore"):
        return np.log(np.abs([list(alphas.values()), list(inverse_stds.values())]))


def _seldom(looks: int) -> bool:
    """Of the first look, the 16th, the 64th, the 256th, ...: the pictures of a long run cost nothing beside it."""
    power_of_four = looks & (looks - 1) == 0 and looks.bit_length() % 2 == 1
    return power_of_four and looks != 4
