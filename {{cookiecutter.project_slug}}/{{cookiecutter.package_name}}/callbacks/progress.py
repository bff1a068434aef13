"""Progress: a bar in a terminal, and lines for logs."""

from time import perf_counter
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from .resume import interval_ended
from .throughput import Throughput


class ProgressBar(RichProgressBar):
    """Lightning's bar, over the batches that are left until the last step."""

    @property
    def total_train_batches(self) -> int | float:
        return (self.trainer.max_steps - self.trainer.global_step) * self.trainer.accumulate_grad_batches

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{'Training':{len(self.validation_description)}}"


class ProgressLines(L.Callback):
    """Prints a line for each validation, on rank 0; a run without validation prints it at the same steps:

    `step  250/1500  epoch 1.67  train/loss 2.3100  val/loss 2.2800  31.0 s  66,000 tokens/s`

    Args:
        steps_per_epoch: optimiser steps.
    """

    def __init__(self, throughput: Throughput, steps_per_epoch: int) -> None:
        self.throughput, self.steps_per_epoch = throughput, steps_per_epoch

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if interval_ended(trainer):
            self._print(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._print(trainer)

    def _print(self, trainer: L.Trainer) -> None:
        now = perf_counter()
        seconds, self._since = now - self._since, now
        if trainer.is_global_zero:
            step, total, values = trainer.global_step, str(trainer.max_steps), trainer.callback_metrics
            others = [tag for tag in values if tag.startswith("val/") and tag != "val/loss"]
            metrics = [f"{tag} {values[tag]:.4f}" for tag in ("train/loss", "val/loss", *others) if tag in values]
            place = [f"step {step:>{len(total)}}/{total}", f"epoch {step / self.steps_per_epoch:.2f}"]
            parts = [*place, *metrics, f"{seconds:.1f} s", self.throughput.reading()]
            print("  ".join(filter(None, parts)), flush=True)
