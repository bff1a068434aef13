"""One clock for a run: the optimiser step."""

from typing import Any

import lightning as L


class StepClock(L.Callback):
    """Resumes a run from its optimiser step alone; checkpoints hold no state of Lightning's loops.

    Lightning restores its loops as they were and guesses what was going on: it would go on within an accumulated step
    whose first gradients are lost, and skip a validation that was due. Here its counters follow from the step: batches
    are steps times accumulation, on other devices too. A validation that was due and has not ended runs first.

    The last step is always validated. Put it behind the callbacks that take part in a validation.

    Args:
        validate_every: steps from one validation to the next.
    """

    def __init__(self, validate_every: int) -> None:
        self.validate_every = validate_every
        self.start = 0  # the step that training goes on from
        self._validated = 0  # the step at which a validation has ended last

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validated = state_dict["validated"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        del checkpoint["loops"]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.start = checkpoint["global_step"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loop, step = trainer.fit_loop.epoch_loop, self.start
        batches = loop.batch_progress.total
        batches.load_state_dict(dict.fromkeys(batches.state_dict(), step * trainer.accumulate_grad_batches))
        steps = loop.automatic_optimization.optim_progress.optimizer.step.total
        steps.load_state_dict(dict.fromkeys(steps.state_dict(), step))
        due = step > 0 and (step % self.validate_every == 0 or step == trainer.max_steps)
        if due and self._validated != step and trainer.enable_validation:
            loop._batches_that_stepped = step - 1  # Lightning logs a step's metrics under the step before it
            trainer.validating = True
            loop.val_loop.run()
            trainer.training = True
        loop._batches_that_stepped = step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # before which Lightning validates

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = trainer.global_step


def interval_ended(trainer: L.Trainer) -> bool:
    """Returns whether a validation would be due after this batch, in a run that has no data to validate on."""
    if sum(trainer.num_val_batches) or trainer.fit_loop._should_accumulate():
        return False
    every = int(trainer.val_check_interval) // trainer.accumulate_grad_batches
    return trainer.global_step % every == 0 or trainer.global_step == trainer.max_steps
