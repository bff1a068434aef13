"""Image generation: noise becomes images of a class."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ...config import plain
from ...data import get_kind
from ...errors import require
from ...norms import has_batch_norm
from ...utils import mix, stamp
from ..base import BaseModule
from ..mean import Mean
from . import objectives as dit_objectives
from .objectives import Objective
from .quality import Quality
from .samples import Samples
from .sampling import check_sampling, check_steps, draws, generate, sent

BINS = ("t_00-25", "t_25-50", "t_50-75", "t_75-100")  # of time, in hundredths
GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, are spread evenly however many they are


class DiTModule(BaseModule):
    """The objective's loss on images (B, C, H, W) and their classes (B,).

    Noise and time of a sample follow from the seed, the epoch and its place in it; in validation and test, noise from
    the seed and the place, and time from the place alone. So they are the same however the samples are divided into
    batches and devices. Curves of the loss by quarters of time are `loss_by_time/<stage>_<quarter>`: in training of the
    last batch, as train/loss is.

    Args:
        shape: (C, H, W).
        num_classes: the label of no class.
        label_dropout: share of the samples that are trained on without their class.
        callbacks: for training and evaluation.
    """

    def __init__(
        self,
        net: nn.Module,
        objective: Objective,
        shape: Sequence[int],
        num_classes: int,
        label_dropout: float,
        callbacks: Sequence[L.Callback] = (),
        **base: Any,
    ) -> None:
        super().__init__(net, **base)
        require(0 <= label_dropout < 1, f"task.label_dropout={label_dropout}: expected 0 or more, and less than 1")
        self.objective, self.shape, self.num_classes = objective, tuple(shape), num_classes
        self.label_dropout, self.callbacks = label_dropout, callbacks
        self._by_time = Mean(len(BINS))  # of a validation
        self._quarters = torch.zeros(2, len(BINS))  # of the last batch: sums of losses, and their numbers

    def model_inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        images, classes = batch
        t, noise = self._evenly(images, self._places(len(images)))
        return self.objective.noisy(images, t, noise), t, classes

    def on_fit_start(self) -> None:
        if has_batch_norm(self.model) and self.label_dropout and self.trainer.is_global_zero:
            mixed = "its statistics are over samples with and without a class together"
            print(f"norm=bn: {mixed}, so guidance compares two nets that were never normalised apart")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, classes = batch
        seeds = [mix(self.seed, self.current_epoch, place) for place in self._places(len(images), batch_idx)]
        uniform, noise = draws(seeds, images.shape[1:], images.device)
        t = self.objective.times(uniform[:, 0])
        labels = torch.where(uniform[:, 1] < self.label_dropout, self.num_classes, classes)
        losses = self.objective.loss(self.model, images, labels, t, noise)
        self._quarters = by_quarters(losses.detach(), t)
        loss = losses.mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        super().on_before_optimizer_step(optimizer)
        if self.logs_this_step:
            sums, numbers = self.trainer.strategy.reduce(self._quarters, reduce_op="sum").tolist()
            self._log_by_time("train", sums, numbers, self.trainer.global_step)

    def evaluate_batch(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, classes = batch
        t, noise = self._evenly(images, self._places(len(images), batch_idx))
        losses = self.objective.loss(self.eval_model, images, classes, t, noise)
        self.mean_loss(stage).update(losses.sum(), len(losses))
        if stage == "val":
            sums, numbers = by_quarters(losses, t)
            self._by_time.update(sums, numbers)
        self.log(f"{stage}/loss", self.mean_loss(stage), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        means = self._by_time.compute().tolist()  # over all devices
        self._by_time.reset()
        numbers = [0 if math.isnan(mean) else 1 for mean in means]
        self._log_by_time("val", means, numbers, self.trainer.global_step - 1)  # that of val/loss: the last one trained

    def generate(self, labels: Sequence[int], seeds: Sequence[int], **how: Any) -> Iterator[Tensor]:
        """Samples of `eval_model` as `models/dit_sampling.generate` draws them, in batches like those of the data."""
        size = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        how = {"sampler": self.objective.samplers[0], "batch_size": size, **how}
        return generate(self.eval_model, self.objective, labels, seeds, self.shape, self.num_classes, **how)

    def configure_callbacks(self) -> list[L.Callback]:
        return list(self.callbacks)

    def _places(self, number: int, batch_idx: int = 0) -> Sequence[int]:
        """Of a batch's samples among all; of the first batch without a trainer."""
        if self._trainer is None:
            return range(number)
        return self.trainer.datamodule.places(number, batch_idx)  # type: ignore[attr-defined]

    def _evenly(self, images: Tensor, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Times and noise of evaluation."""
        _, noise = draws([mix(self.seed, place) for place in places], images.shape[1:], images.device)
        spread = torch.tensor([place * GOLDEN % 1.0 for place in places], dtype=torch.float32)
        return self.objective.times(sent(spread, images.device)), noise

    def _log_by_time(self, stage: str, sums: Sequence[float], numbers: Sequence[float], step: int) -> None:
        """Curves alone, of the quarters that had samples."""
        quarters = zip(BINS, sums, numbers, strict=True)
        means = {f"loss_by_time/{stage}_{name}": total / number for name, total, number in quarters if number}
        for logger in self.trainer.loggers:
            logger.log_metrics(means, step)


def by_quarters(losses: Tensor, t: Tensor) -> Tensor:
    """Sums of the losses (B,) whose times (B,) are in each quarter of 0..1, and their numbers: (2, 4)."""
    quarter = (t * len(BINS)).long().clamp(max=len(BINS) - 1)
    both = torch.stack((losses, torch.ones_like(losses)))
    return both.new_zeros(2, len(BINS)).index_add(1, quarter, both)  # without a wait for the device


def build(net: nn.Module, cfg: DictConfig, **base: Any) -> DiTModule:
    """The task of `cfg`, whose model was made for the data's images and classes."""
    mixup = plain(cfg.data).get("mixup", {})
    mixed = mixup.get("mixup_alpha") or mixup.get("cutmix_alpha")
    require(not mixed, "data.mixup: a DiT wants one class an image; set mixup_alpha=0 and cutmix_alpha=0")
    objective = dit_objectives.build(**plain(cfg)["objective"])
    fits = cfg.model.outputs == objective.outputs
    require(fits, f"model.outputs={cfg.model.outputs}: objective={cfg.objective.name} wants {objective.outputs}")
    shown = get_kind(cfg.data.module)
    assert shown.pixels is not None
    assert shown.shows_pixels is not None
    assert shown.identity is not None
    pixels, section = shown.pixels(plain(cfg.data)), plain(cfg.task)["quality"]
    seen = section["n"] == 0 or shown.shows_pixels(plain(cfg.data))
    require(seen, f"task.quality.n={section['n']}: these data are not decoded to images; set data.vae, or take n=0")
    shape = cfg.data.in_chans, cfg.data.img_size, cfg.data.img_size
    how = {key: section[key] for key in ("steps", "sampler", "guidance", "interval")}
    check_sampling(objective, cfg.task.label_dropout, **how, prefix="task.quality.")
    check_steps(objective, "task.samples.steps", cfg.task.samples.steps)
    quality = Quality(pixels, shape, **section, cache=_cache(cfg, shown.identity))
    monitors = ["val/loss", *([f"val/{quality.name}"] if quality.n and quality.validate else [])]
    monitor, mode = cfg.task.monitor, cfg.task.monitor_mode
    choice = " or ".join(f"{name} (min)" for name in monitors)
    known = monitor in monitors and mode == "min"
    require(known, f"task.monitor={monitor}, task.monitor_mode={mode}: choose {choice}")
    callbacks = [quality, Samples(pixels, **plain(cfg.task)["samples"])]
    label_dropout = cfg.task.label_dropout
    return DiTModule(net, objective, shape, cfg.model.num_classes, label_dropout, callbacks=callbacks, **base)


def _cache(cfg: DictConfig, identity: Callable[[Mapping[str, Any]], str]) -> Path | None:
    """Where the statistics of these training images are kept, by all that they depend on but image files themselves."""
    if not cfg.task.quality.n or cfg.task.quality.features == "pixels":  # those are quicker measured than read
        return None
    aside = ("augment", "batch_size", "download", "hflip", "mixup", "pin_memory", "total_batch_size", "workers")
    settings = {key: value for key, value in plain(cfg.data).items() if key not in aside}
    quality = plain(cfg.task)["quality"]
    weights = Path(quality["weights"]).expanduser()
    written = stamp(weights) if weights.is_file() else None
    text = json.dumps([settings, identity(settings), quality["features"], quality["weights"], written], sort_keys=True)
    return Path(cfg.runs) / ".statistics" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.pt"
