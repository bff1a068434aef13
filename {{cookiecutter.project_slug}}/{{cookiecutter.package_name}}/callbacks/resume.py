"""One clock for a run: the optimiser step, from which it resumes and at which a signal stops it."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import lightning as L
from torch.optim.lr_scheduler import LambdaLR

# Ctrl-C, the end of a job, and a terminal that is closed; Windows has no SIGHUP
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class StepClock(L.Callback):
    """Resumes a run from its optimiser step alone, and stops it between two batches; belongs behind all callbacks.

    Checkpoints hold no state of Lightning's loops. Lightning restores its loops as they were and guesses the rest: it
    would go on within an accumulated step whose first gradients are lost, and skip a validation that was due. Here
    its counters follow from the step: batches are steps times accumulation, on other devices too. A validation that
    was due and has not ended runs first. The last step is always validated.

    The first signal of STOP_SIGNALS sets a flag, which all ranks share before the next batch. A second one ends the
    process at once; its last checkpoint is whole.

    Args:
        validate_every: steps from one validation to the next.
    """

    def __init__(self, validate_every: int) -> None:
        self.validate_every = validate_every
        self.start = 0  # the step that training resumes from
        self._validated = 0  # the step at which a validation has ended last
        self._total = 0  # steps of the training, as the checkpoint has them
        self._signalled = False

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self._validated, "total": self._total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validated, self._total = state_dict["validated"], state_dict["total"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        del checkpoint["loops"]

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.start = checkpoint["global_step"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:  # after training, Lightning sets all handlers to those before
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets SIGHUP's
                    signal.signal(number, self._stop_soon)
        loop, step = trainer.fit_loop.epoch_loop, self.start
        batches = loop.batch_progress.total
        batches.load_state_dict(dict.fromkeys(batches.state_dict(), step * trainer.accumulate_grad_batches))
        steps = loop.automatic_optimization.optim_progress.optimizer.step.total
        steps.load_state_dict(dict.fromkeys(steps.state_dict(), step))
        self._set_rates(trainer)
        due = step > 0 and (step % self.validate_every == 0 or step == trainer.max_steps)
        if due and self._validated != step and trainer.enable_validation:
            loop._batches_that_stepped = step - 1  # Lightning logs a step's metrics under the step before it
            trainer.validating = True
            loop.val_loop.run()
            trainer.training = True
        loop._batches_that_stepped = step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._stop_if_signalled(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # before which Lightning validates

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.world_size == 1:  # several ranks may have different numbers of batches
            self._stop_if_signalled(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop_if_signalled(trainer)  # before the test

    def _set_rates(self, trainer: L.Trainer) -> None:
        """Sets the learning rates of this step; the saved ones are wrong if the run was made longer after the save."""
        optimizer = trainer.optimizers[0]
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        if not schedulers or not isinstance(scheduler := schedulers[0], LambdaLR):
            return
        old = optimizer.param_groups[0]["lr"]
        for group, rate, factor in zip(optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = rate * factor(self.start)
        if self._total not in (0, trainer.max_steps) and trainer.is_global_zero:
            print(
                f"warning: the schedule is stretched from {self._total} to {trainer.max_steps} steps, so the learning "
                f"rate changes from {old:.2g} to {optimizer.param_groups[0]['lr']:.2g}; a new run with init= has a "
                "warm-up and a decay of its own",
                flush=True,
            )
        self._total = trainer.max_steps

    def _stop_soon(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        for one in STOP_SIGNALS:
            signal.signal(one, signal.SIG_DFL)
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            os.write(2, b"\nstopping before the next batch; once more ends at once\n")  # print is not safe here

    def _stop_if_signalled(self, trainer: L.Trainer) -> None:
        """Raises KeyboardInterrupt on all ranks if one of them was signalled."""
        if trainer.strategy.reduce_boolean_decision(self._signalled, all=False):
            raise KeyboardInterrupt


def interval_ended(trainer: L.Trainer) -> bool:
    """Returns whether a validation would be due after this batch, in a run that has no data to validate on."""
    if sum(trainer.num_val_batches) or trainer.fit_loop._should_accumulate():
        return False
    every = int(trainer.val_check_interval) // trainer.accumulate_grad_batches
    return trainer.global_step % every == 0 or trainer.global_step == trainer.max_steps
