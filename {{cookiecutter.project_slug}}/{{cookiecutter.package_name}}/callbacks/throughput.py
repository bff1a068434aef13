"""How fast a run trains, without waiting for the device at every step."""

from time import perf_counter
from typing import Any

import lightning as L


class Throughput(L.Callback):
    """Logs `throughput/samples_per_second` per epoch: samples of all devices over time in training, without validation.

    A GPU runs behind the host by a few steps at most, so the mean over an epoch needs no synchronisation. `seconds`
    (spent in fit, in all) and `samples` go on over a resumed run.
    """

    def __init__(self, samples_per_step: int) -> None:
        self.samples_per_step = samples_per_step  # of all devices, and of all batches that gradients accumulate over
        self.samples, self.training_seconds, self.seconds = 0, 0.0, 0.0
        self._fit_since = self._since = 0.0

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.training_seconds if self.training_seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        self._add_fit_time()
        return {"samples": self.samples, "training_seconds": self.training_seconds, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.samples, self.seconds = state_dict["samples"], state_dict["seconds"]
        self.training_seconds = state_dict["training_seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._fit_since = self._since = perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = perf_counter()
        self.training_seconds += now - self._since
        self.samples += self.samples_per_step // trainer.accumulate_grad_batches
        self._since = now

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            logger.log_metrics({"throughput/samples_per_second": self.samples_per_second}, trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._add_fit_time()

    def _add_fit_time(self) -> None:
        now = perf_counter()
        self.seconds += now - self._fit_since
        self._fit_since = now
