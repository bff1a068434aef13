"""When a run validates, besides its interval."""

from typing import Any

import lightning as L


class FinalValidation(L.Callback):
    """Validates where training ends between two validations, so that the last state is measured, and may be the best.

    Lightning validates before it stops early, and this is how it is asked to.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        by_steps = trainer.check_val_every_n_epoch is None
        last_batch = by_steps and trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        if last_batch or trainer.global_step == trainer.max_steps:
            trainer.should_stop = True
