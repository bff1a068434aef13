"""The end of a training that has come to nothing."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from ..config.errors import Diverged


class Divergence(L.Callback):
    """Ends a training whose loss is no finite number any more: raises `Diverged` on all ranks.

    It is counted on the device and looked at every `every_n_steps`, at the end and before anything is saved, so that no
    other step waits for it, and no checkpoint holds what has diverged.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = max(1, every_n_steps)
        self.lasting = 1  # batches in a row that are too many
        self._now: torch.Tensor | int = 0  # batches in a row without a finite loss
        self._looked = 0  # at this step

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.precision == "16-mixed":  # scaling of the loss leaves out the step of a batch that was too large
            self.lasting = 2

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        self._now = (self._now + 1) * ~torch.isfinite(loss.detach())
        if trainer.global_step != self._looked and trainer.global_step % self.every_n_steps == 0:
            self._look(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer)

    def _look(self, trainer: L.Trainer) -> None:
        self._looked = trainer.global_step
        if trainer.strategy.reduce_boolean_decision(int(self._now) >= self.lasting, all=False):
            raise Diverged(
                f"the training has diverged: at step {trainer.global_step} its loss is no finite number; "
                "try a smaller optim.lr, a longer schedule.warmup_share or another norm"
            )
