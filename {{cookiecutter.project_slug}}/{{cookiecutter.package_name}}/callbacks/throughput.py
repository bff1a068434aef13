"""Throughput of a training, measured without waiting for the device at every step."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import lightning as L
from torch import nn

from ..models.base import BaseModule
from .flops import peak_rate, training_flops
from .resume import interval_ended


class Throughput(L.Callback):
    """Logs `throughput/<unit>_per_second` from one validation to the next, or as often in a run without validation:
    units of all devices over the time spent training. On a chip of known speed also `throughput/mfu`, the share of its
    peak rate that the model's own FLOPs make up (`flops.py`).

    Validation is left out. A GPU runs behind the host by a few steps at most, so the mean over many needs no
    synchronisation. `seconds` (spent in fit, in all) and `units` go on in a resumed run from what its checkpoint has.

    Args:
        samples_per_step: of all devices, and of all batches that gradients accumulate over.
        unit: what is counted, "samples" or "tokens".
        units_per_sample: 1, or the tokens of a sample.
        meta_model: builds the model on the "meta" device, to count its FLOPs.
    """

    def __init__(
        self,
        samples_per_step: int,
        unit: str = "samples",
        units_per_sample: int = 1,
        meta_model: Callable[[], nn.Module] | None = None,
    ) -> None:
        self.samples_per_step, self.unit, self.units_per_sample = samples_per_step, unit, units_per_sample
        self.meta_model = meta_model
        self.units, self.training_seconds, self.seconds = 0, 0.0, 0.0
        self.rates: dict[str, float] = {}  # the last that were logged
        self._reported = (0, 0.0)  # units and training_seconds at that time
        self._since: float | None = None  # the last moment that `seconds` and `training_seconds` know of
        self._mfu: float | None = None  # of one unit a second; 0 where it cannot be told, None before the first batch

    def state_dict(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "training_seconds": self.training_seconds,
            "seconds": self.seconds,
            "reported": list(self._reported),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.units, self.training_seconds = state_dict["units"], state_dict["training_seconds"]
        self.seconds = state_dict["seconds"]
        units, seconds = state_dict["reported"]
        self._reported = (units, seconds)

    def overall(self) -> dict[str, float]:
        """`<unit>_per_second` and, where the peak rate is known, `mfu` of the whole run."""
        return self._rates(self.units, self.training_seconds)

    def reading(self) -> str:
        """The rates that were logged last, for a person."""
        words = [f"{self.rates[f'{self.unit}_per_second']:,.0f} {self.unit}/s"] if self.rates else []
        return "  ".join(words + ([f"MFU {self.rates['mfu']:.1%}"] if "mfu" in self.rates else []))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.training_seconds += self._tick()
        self.units += self.samples_per_step * self.units_per_sample // trainer.accumulate_grad_batches
        if self._mfu is None:
            self._mfu = self._measure(trainer, pl_module, batch)
            self._tick()  # which is no training
        if interval_ended(trainer):
            self._report(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tick()
        self._report(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tick()

    def _report(self, trainer: L.Trainer) -> None:
        units, seconds = self._reported
        self.rates = self._rates(self.units - units, self.training_seconds - seconds)
        self._reported = (self.units, self.training_seconds)
        for logger in trainer.loggers:
            logger.log_metrics({f"throughput/{name}": rate for name, rate in self.rates.items()}, trainer.global_step)

    def _rates(self, units: int, seconds: float) -> dict[str, float]:
        rate = units / max(seconds, 1e-9)
        return {f"{self.unit}_per_second": rate} | ({"mfu": rate * self._mfu} if self._mfu else {})

    def _measure(self, trainer: L.Trainer, task: L.LightningModule, batch: Any) -> float:
        """MFU of one unit a second, or 0."""
        peak = peak_rate(trainer.strategy.root_device, str(trainer.precision))
        if peak is None or self.meta_model is None:
            return 0.0
        assert isinstance(task, BaseModule)
        flops = training_flops(self.meta_model(), task.model_inputs(batch)) / self.units_per_sample
        return flops / (trainer.world_size * peak)

    def _tick(self) -> float:
        """Seconds since the last tick, added to `seconds`; 0 outside of training."""
        if self._since is None:
            return 0.0
        now = perf_counter()
        passed, self._since = now - self._since, now
        self.seconds += passed
        return passed
