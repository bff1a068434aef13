"""Curves that go on where they stopped."""

from typing import Any

import lightning as L


class LogStep(L.Callback):
    """Keeps the step that Lightning logs at equal to the number of optimiser steps.

    Lightning adds one to its own count whenever a run resumes from a checkpoint that was saved by an exception, and
    every later point of the curves would lie one step too far right.
    """

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
