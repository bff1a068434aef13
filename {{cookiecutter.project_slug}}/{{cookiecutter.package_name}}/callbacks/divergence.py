"""The end of a training that has come to nothing."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from ..config.errors import Diverged


class Divergence(L.Callback):
    """Ends a training whose loss is not finite any more: raises `Diverged` on all ranks.

    The counter stays on the device. It is read every `every_n_steps`, at the end and before each save, so that no other
    step waits for the device, and no checkpoint has diverged weights.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = max(1, every_n_steps)
        self.max_bad_batches = 1  # in a row, at which training ends
        self._bad_batches: torch.Tensor | int = 0  # in a row without a finite loss, until now
        self._checked_step = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.precision == "16-mixed":  # scaling of the loss leaves out the step of a batch that was too large
            self.max_bad_batches = 2

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        self._bad_batches = (self._bad_batches + 1) * ~torch.isfinite(loss.detach())
        if trainer.global_step != self._checked_step and trainer.global_step % self.every_n_steps == 0:
            self._check(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer)

    def _check(self, trainer: L.Trainer) -> None:
        self._checked_step = trainer.global_step
        if trainer.strategy.reduce_boolean_decision(int(self._bad_batches) >= self.max_bad_batches, all=False):
            raise Diverged(
                f"the training has diverged: at step {trainer.global_step} its loss is not finite; "
                "try a smaller optim.lr, a longer schedule.warmup_share or another norm"
            )
