"""The LightningModule of a DiT: losses by an objective, and samples."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from ...norms import has_batch_norm
from ...utils import mix
from ..base import BaseModule
from ..mean import Mean
from .objectives import Objective
from .sampling import draw_noise, generate, to_device, trajectory

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
        self._val_by_time = Mean(len(BINS))
        self._train_by_time = torch.zeros(2, len(BINS))  # of the last batch: sums of losses, and their numbers

    def model_inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        images, classes = batch
        t, noise = self._evaluation_noise(images, self._sample_indices(len(images)))
        return self.objective.q_sample(images, t, noise), t, classes

    def on_fit_start(self) -> None:
        if has_batch_norm(self.model) and self.label_dropout and self.trainer.is_global_zero:
            mixed = "its statistics are over samples with and without a class together"
            print(f"norm=bn: {mixed}, so guidance compares two models that were never normalised apart")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, classes = batch
        seeds = [mix(self.seed, epoch, index) for epoch, index in self._training_indices(len(images), batch_idx)]
        uniform, noise = draw_noise(seeds, images.shape[1:], images.device)
        t = self.objective.times(uniform[:, 0])
        labels = torch.where(uniform[:, 1] < self.label_dropout, self.num_classes, classes)
        losses = self.objective.loss(self.model, images, labels, t, noise)
        self._train_by_time = by_quarters(losses.detach(), t)
        loss = losses.mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def _training_indices(self, number: int, batch_idx: int) -> list[tuple[int, int]]:
        """Returns (epoch, index) of the samples of a batch; without a trainer, as in benchmark.py, any."""
        if self._trainer is None:
            return [(0, index) for index in range(number)]
        found: list[tuple[int, int]] = self.trainer.datamodule.training_indices(number, batch_idx)  # type: ignore[attr-defined]
        return found

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        super().on_before_optimizer_step(optimizer)
        if self.logs_this_step:
            sums, numbers = self.trainer.strategy.reduce(self._train_by_time, reduce_op="sum").tolist()
            self._log_by_time("train", sums, numbers, self.trainer.global_step)

    def evaluate_batch(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, classes = batch
        t, noise = self._evaluation_noise(images, self._sample_indices(len(images), batch_idx))
        losses = self.objective.loss(self.eval_model, images, classes, t, noise)
        self.mean_loss(stage).update(losses.sum(), len(losses))
        if stage == "val":
            self._val_by_time.update(*by_quarters(losses, t))
        self.log(f"{stage}/loss", self.mean_loss(stage), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        means = self._val_by_time.compute().tolist()  # over all devices
        self._val_by_time.reset()
        numbers = [0 if math.isnan(mean) else 1 for mean in means]
        self._log_by_time("val", means, numbers, self.trainer.global_step - 1)  # that of val/loss: the last one trained

    def trajectory(self, labels: Sequence[int], seeds: Sequence[int], steps: int) -> Iterator[Tensor]:
        """Yields the states of `sampling.trajectory` of `eval_model`, in the trainer's precision."""
        options: dict[str, Any] = {"context": self.trainer.strategy.precision_plugin.forward_context}
        shape, no_class = self.shape, self.num_classes
        return trajectory(self.eval_model, self.objective, labels, seeds, shape, no_class, steps, **options)

    def generate(self, labels: Sequence[int], seeds: Sequence[int], steps: int, **options: Any) -> Iterator[Tensor]:
        """Yields the batches of `sampling.generate` of `eval_model`, as large as the data's."""
        options["batch_size"] = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        options["context"] = self.trainer.strategy.precision_plugin.forward_context
        shape, no_class = self.shape, self.num_classes
        return generate(self.eval_model, self.objective, labels, seeds, shape, no_class, steps, **options)

    def configure_callbacks(self) -> list[L.Callback]:
        return list(self.callbacks)

    def _sample_indices(self, number: int, batch_idx: int = 0) -> Sequence[int]:
        """Returns the indices of a batch's samples among all; without a trainer, of the first batch."""
        if self._trainer is None:
            return range(number)
        return self.trainer.datamodule.sample_indices(number, batch_idx)  # type: ignore[attr-defined]

    def _evaluation_noise(self, images: Tensor, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns times (B,) and noise (B, C, H, W)."""
        _, noise = draw_noise([mix(self.seed, index) for index in indices], images.shape[1:], images.device)
        spread = torch.tensor([index * GOLDEN % 1.0 for index in indices], dtype=torch.float32)
        return self.objective.times(to_device(spread, images.device)), noise

    def _log_by_time(self, stage: str, sums: Sequence[float], numbers: Sequence[float], step: int) -> None:
        """Logs curves of the quarters that had samples."""
        quarters = zip(BINS, sums, numbers, strict=True)
        means = {f"loss_by_time/{stage}_{name}": total / number for name, total, number in quarters if number}
        for logger in self.trainer.loggers:
            logger.log_metrics(means, step)


def by_quarters(losses: Tensor, t: Tensor) -> Tensor:
    """Returns sums of the losses (B,) by quarters of their times (B,), and their numbers: (2, 4)."""
    quarter = (t * len(BINS)).long().clamp(max=len(BINS) - 1)
    both = torch.stack((losses, torch.ones_like(losses)))
    return both.new_zeros(2, len(BINS)).index_add(1, quarter, both)  # without a wait for the device
