"""The LightningModule of a DiT: losses by an objective, and samples."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from ...data.base import DataModule
from ...data.sampling import rank_and_world
from ...norms import has_batch_norm
from ...utils import mix
from ..base import BaseModule
from ..mean import Mean
from .objectives import Objective
from .sampling import Sampler, draw_noise, to_device

BINS = ("t_00-25", "t_25-50", "t_50-75", "t_75-100")  # of time, in hundredths
GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly however many they are


class DiTModule(BaseModule):
    """Losses on images (B, C, H, W) and their classes (B,).

    Noise and time of a sample follow from the seed, the epoch and its index in it; in validation and test, noise from
    the seed and the index, and time from the index alone. So they do not depend on batches and devices.
    `loss_by_time/<stage>_<quarter>` are the losses by quarters of time, in training of the last batch.

    Args:
        shape: (C, H, W).
        num_classes: the label of no class.
        label_dropout: share of the training samples whose class is hidden.
        callbacks: for training and evaluation.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        shape: Sequence[int],
        num_classes: int,
        label_dropout: float,
        callbacks: Sequence[L.Callback] = (),
        **base: Any,
    ) -> None:
        super().__init__(model, **base)
        self.objective, self.shape, self.num_classes = objective, tuple(shape), num_classes
        self.label_dropout, self.callbacks = label_dropout, callbacks
        self._train_by_time, self._val_by_time = Mean(len(BINS)), Mean(len(BINS))

    @property
    def data(self) -> DataModule:
        return cast(Any, self.trainer).datamodule

    def model_inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        images, classes = batch
        rank, world = rank_and_world(self._trainer)
        t, noise = self._evaluation_noise(images, range(rank, len(images) * world, world))
        return self.objective.q_sample(images, t, noise), t, classes

    def on_fit_start(self) -> None:
        if has_batch_norm(self.model) and self.label_dropout and self.trainer.is_global_zero:
            mixed = "its statistics are over samples with and without a class together"
            print(f"norm=bn: {mixed}, so guidance compares two models that were never normalised apart")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, classes = batch
        samples = self.data.training_indices(len(images), batch_idx)
        uniform, noise = draw_noise([mix(self.seed, *sample) for sample in samples], images.shape[1:], images.device)
        t = self.objective.times(uniform[:, 0])
        labels = torch.where(uniform[:, 1] < self.label_dropout, self.num_classes, classes)
        losses = self.objective.loss(partial(self.model, labels=labels), images, t, noise)
        self._train_by_time.reset()
        self._train_by_time.update(*by_quarters(losses, t))
        loss = losses.mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        super().on_before_optimizer_step(optimizer)
        if self.logs_this_step:
            self._log_by_time("train", self._train_by_time, self.trainer.global_step)

    def evaluate_batch(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, classes = batch
        t, noise = self._evaluation_noise(images, self.data.sample_indices(len(images), batch_idx))
        losses = self.objective.loss(partial(self.eval_model, labels=classes), images, t, noise)
        self.mean_loss(stage).update(losses.sum(), len(losses))
        if stage == "val":
            self._val_by_time.update(*by_quarters(losses, t))
        self.log(f"{stage}/loss", self.mean_loss(stage), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        # at the step of val/loss: the last one trained
        self._log_by_time("val", self._val_by_time, self.trainer.global_step - 1)
        self._val_by_time.reset()

    def sampler(self, steps: int, **options: Any) -> Sampler:
        """Returns a sampler by `eval_model`, in the trainer's precision; `options` are those of `Sampler`."""
        context = self.trainer.strategy.precision_plugin.forward_context
        return Sampler(self.eval_model, self.objective, self.shape, self.num_classes, steps, context=context, **options)

    def configure_callbacks(self) -> list[L.Callback]:
        return list(self.callbacks)

    def _evaluation_noise(self, images: Tensor, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns times (B,) and noise (B, C, H, W)."""
        _, noise = draw_noise([mix(self.seed, index) for index in indices], images.shape[1:], images.device)
        spread = torch.tensor([index * GOLDEN % 1.0 for index in indices], dtype=torch.float32)
        return self.objective.times(to_device(spread, images.device)), noise

    def _log_by_time(self, stage: str, losses: Mean, step: int) -> None:
        """Logs the losses of the quarters that had samples, over all devices."""
        means = zip(BINS, losses.compute().tolist(), strict=True)
        values = {f"loss_by_time/{stage}_{name}": mean for name, mean in means if not math.isnan(mean)}
        for logger in self.trainer.loggers:
            logger.log_metrics(values, step)


def by_quarters(losses: Tensor, t: Tensor) -> Tensor:
    """Returns sums of the losses (B,) by quarters of their times (B,), and their numbers: (2, 4)."""
    quarter = (t * len(BINS)).long().clamp(max=len(BINS) - 1)
    both = torch.stack((losses, torch.ones_like(losses)))
    return both.new_zeros(2, len(BINS)).index_add(1, quarter, both)  # without a wait for the device
