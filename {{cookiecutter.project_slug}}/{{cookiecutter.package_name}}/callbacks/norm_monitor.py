"""alpha of every layer, and what the layers are fed, while the net trains."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from ..errors import require
from ..files import write_png
from ..tasks.base import Task
from .norm_statistics import input_readings, norm_sums, scalar_readings

CHARTS = {  # in TensorBoard's Custom Scalars, by the tags they hold
    "alpha": "alpha of every layer",
    "shift": "shift of every layer",
    "inverse_std": "1/std of every norm's input",
    "saturated": "share of saturated inputs",
}


class NormMonitor(L.Callback):
    """Every `every_n_steps` optimiser steps, per norm layer: `alpha/<layer>` and `shift/<layer>` where it has them,
    `input_std/<layer>`, `inverse_std/<layer>`, and `saturated/<layer>`, the share of its inputs with
    |alpha x + shift| > 2.

    The inputs are those of one forward pass in evaluation mode on the first `samples` of the batch at hand, of all
    ranks together. In TensorBoard one chart holds all layers (Custom Scalars), and a heat map shows alpha over depth
    and step (Images).

    Args:
        every_n_steps: 0 turns the monitor off.
        samples: per device.
        folder: where the heat map is written too, as `alpha.png`; None for nowhere.
    """

    def __init__(self, every_n_steps: int = 50, samples: int = 16, folder: Path | None = None) -> None:
        require(every_n_steps >= 0, f"monitor.every_n_steps={every_n_steps}: expected 0 (off) or more")
        require(samples >= 1, f"monitor.samples={samples}: expected at least 1")
        self.every_n_steps, self.samples, self.folder = every_n_steps, samples, folder
        self.layers: list[str] = []  # all norms, in the order of execution
        self.steps: list[int] = []
        self.alphas: list[dict[str, float]] = []  # by tag, one row a step
        self._drawn = 4  # looks that the last picture held
        self._charted = False

    def state_dict(self) -> dict[str, Any]:
        return {"layers": self.layers, "steps": self.steps, "alphas": self.alphas}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.layers, self.steps, self.alphas = (list(state_dict[key]) for key in ("layers", "steps", "alphas"))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step  # the same for several batches while gradients are accumulated
        if self.every_n_steps and step % self.every_n_steps == 0 and self.steps[-1:] != [step]:
            assert isinstance(pl_module, Task)
            inputs = [x[: self.samples] if isinstance(x, Tensor) else x for x in pl_module.net_inputs(batch)]
            with trainer.strategy.precision_plugin.forward_context():
                sums = norm_sums(pl_module.net, inputs)
            self.layers = list(sums)
            if sums:
                totals = trainer.strategy.reduce(torch.stack(list(sums.values())), reduce_op="sum")
                self._log(trainer, pl_module, totals.tolist())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.steps and self.steps[-1] != trainer.global_step:
            assert isinstance(pl_module, Task)
            self._log(trainer, pl_module, None)
        self._draw(trainer)

    def _log(self, trainer: L.Trainer, task: Task, totals: list[list[float]] | None) -> None:
        values = scalar_readings(task.net, self.layers)
        alphas = {tag: value for tag, value in values.items() if tag.startswith("alpha/")}
        if totals is not None:
            values |= input_readings(self.layers, totals, {tag.partition("/")[2] for tag in alphas})
        for logger in trainer.loggers:
            logger.log_metrics(values, trainer.global_step)
        if not self._charted:
            self._chart(trainer, {tag.partition("/")[0] for tag in values})
        self.steps.append(trainer.global_step)
        self.alphas.append(alphas)
        if len(self.steps) >= 4 * self._drawn:  # seldom, however long the run
            self._draw(trainer)

    def _chart(self, trainer: L.Trainer, quantities: set[str]) -> None:
        """One chart for each of these quantities, with a line for every layer."""
        self._charted = True
        charts = {title: ["Multiline", [f"{tag}/.*"]] for tag, title in CHARTS.items() if tag in quantities}
        for logger in trainer.loggers if trainer.is_global_zero else []:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars({"norms": charts})

    def _draw(self, trainer: L.Trainer) -> None:
        self._drawn = len(self.steps)
        if not trainer.is_global_zero or self._drawn < 2 or not self.alphas[-1]:
            return
        from .figures import alpha_heat_map  # imports matplotlib

        picture = alpha_heat_map(self.steps, self.alphas)
        if self.folder is not None:
            write_png(self.folder / "alpha.png", picture)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("alpha over depth and step", picture, trainer.global_step)
