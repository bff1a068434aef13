"""How fast a run trains, without waiting for the device at every step."""

from time import perf_counter
from typing import Any

import lightning as L


class Throughput(L.Callback):
    """Logs `throughput/samples_per_second` of each epoch: samples of all devices over the time spent training.

    Validation is left out. A GPU runs behind the host by a few steps at most, so the mean over an epoch needs no
    synchronisation. `seconds` (spent in fit, in all) and `samples` go on over a resumed run.
    """

    def __init__(self, samples_per_step: int) -> None:
        self.samples_per_step = samples_per_step  # of all devices, and of all batches that gradients accumulate over
        self.samples, self.training_seconds, self.seconds = 0, 0.0, 0.0
        self._at_epoch_start = (0, 0.0)
        self._since: float | None = None  # the last moment that `seconds` and `training_seconds` know of

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.training_seconds if self.training_seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self.samples, "training_seconds": self.training_seconds, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.samples, self.training_seconds = state_dict["samples"], state_dict["training_seconds"]
        self.seconds = state_dict["seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = perf_counter()
        self._at_epoch_start = (self.samples, self.training_seconds)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.training_seconds += self._tick()
        self.samples += self.samples_per_step // trainer.accumulate_grad_batches

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tick()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        samples, seconds = self._at_epoch_start
        rate = (self.samples - samples) / max(self.training_seconds - seconds, 1e-9)
        self._at_epoch_start = (self.samples, self.training_seconds)
        for logger in trainer.loggers:
            logger.log_metrics({"throughput/samples_per_second": rate}, trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tick()

    def _tick(self) -> float:
        """Seconds since the last tick, added to `seconds`; 0 outside of training."""
        if self._since is None:
            return 0.0
        now = perf_counter()
        passed, self._since = now - self._since, now
        self.seconds += passed
        return passed
