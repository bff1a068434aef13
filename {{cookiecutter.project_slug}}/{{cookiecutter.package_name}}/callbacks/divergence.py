"""The end of a training that has come to nothing."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch

from ..errors import Diverged

LASTING = 2  # batches in a row; with loss scaling one alone may be too large for 16 bits


class Divergence(L.Callback):
    """Ends a training whose loss is no finite number any more: raises `Diverged` on all ranks.

    It is counted on the device and looked at every `every_n_steps` and at the end, so that no other step waits for it.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = max(1, every_n_steps)
        self._lasting: torch.Tensor | int = 0  # batches in a row without a finite loss

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        self._lasting = (self._lasting + 1) * ~torch.isfinite(loss.detach())
        if trainer.global_step % self.every_n_steps == 0:
            self._look(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: L.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(int(self._lasting) >= LASTING, all=False):
            raise Diverged(
                f"the training has diverged: at step {trainer.global_step} its loss is no finite number; "
                "try a smaller optim.lr, a longer schedule.warmup_share or another norm"
            )
