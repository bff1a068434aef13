"""Runs that go on where they stopped."""

from typing import Any

import lightning as L

from ..runs import finished_epochs


class ExactResume(L.Callback):
    """Brings the counters of a checkpoint, saved at whatever moment, to those of a pause between two optimiser steps.

    Lightning restores its counters as they were, and guesses from them what was going on. Left to itself it goes on
    within an accumulated step whose first gradients are lost; it skips a validation that was due when the checkpoint
    was saved, or runs the rest of an interrupted one and takes that for the whole; and it counts the batch in which
    training broke off twice, so that later validations and points of the curves come at other steps. Here the optimiser
    steps count, batches follow from them (on other devices too), and a validation that has not ended runs again.
    """

    def __init__(self) -> None:
        self._validated = -1  # the optimiser step at which a validation has ended last

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = trainer.global_step

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["validated"] = self._validated

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._validated = checkpoint["validated"]
        if trainer.training:
            checkpoint["loops"]["fit_loop"] |= settled(trainer, checkpoint["loops"]["fit_loop"], self._validated)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # the step that Lightning logs at: on a resume it adds one for a batch that it goes past
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def settled(trainer: L.Trainer, saved: dict[str, Any], validated: int) -> dict[str, Any]:
    """What to replace in `saved`, the state of Lightning's fit loop.

    Args:
        validated: the optimiser step at which a validation has ended last.
    """
    epochs, batch = finished_epochs(saved), saved["epoch_loop.batch_progress"]
    optimizer = saved["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    within = saved["epoch_progress"]["current"]["started"] > epochs
    at_end = within and batch["is_last_batch"] and batch["current"]["processed"] == batch["current"]["ready"]
    steps = optimizer["step"]["total"]["completed"]
    if trainer.check_val_every_n_epoch is None:
        every = int(trainer.val_check_interval) // trainer.accumulate_grad_batches
        due = steps > 0 and steps % every == 0 and validated != steps
    else:  # also one that has ended: its metrics are wanted at the end of the epoch
        due = at_end and (epochs + 1) % trainer.check_val_every_n_epoch == 0
    validate = due and trainer.enable_validation
    if at_end and not validate:  # Lightning would ask for one more batch
        epochs, within, at_end = epochs + 1, False, False
    steps_within = optimizer["step"]["current"]["completed"] if within else 0
    accumulate = trainer.accumulate_grad_batches
    # Lightning takes a validation batch that was started and not processed for an interrupted validation
    interrupted = _counts(0) | {"ready": 1, "started": 1} if validate else _counts(0)
    return {
        "epoch_progress": {key: _counts(epochs, started=epochs + within) for key in ("total", "current")},
        "epoch_loop.state_dict": {"_batches_that_stepped": steps - validate},  # metrics are logged at the step before
        "epoch_loop.batch_progress": {
            "total": _counts(steps * accumulate),
            "current": _counts(steps_within * accumulate),
            "is_last_batch": at_end,
        },
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": optimizer | {"step": optimizer["step"] | {"current": _counts(steps_within)}}
        },
        "epoch_loop.val_loop.batch_progress": {
            "total": interrupted,
            "current": _counts(0),
            "is_last_batch": False,
        },
    }


def _counts(done: int, started: int | None = None) -> dict[str, int]:
    started = done if started is None else started
    return {"ready": started, "started": started, "processed": done, "completed": done}
