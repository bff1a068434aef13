"""Measures of generated images: their distance from real ones, and the share that shows the class asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchmetrics.image.fid import FrechetInceptionDistance

from ...utils import mix, replace
from .features import Classifier, make_features, read_moments
from .module import DiTModule

STATES = ("real_features_sum", "real_features_cov_sum", "real_features_num_samples")
STAGES = {"val": 1, "test": 2}  # their samples start from different noise
MAX_FITTED = 20_000  # images, for the svm


class FrechetDistance(FrechetInceptionDistance):
    """torchmetrics' distance; NaN where features are not finite.

    torch.linalg.eigvals, which torchmetrics calls, corrupts memory on NaN in torch 2.15 with MKL.
    """

    def compute(self) -> Tensor:
        sums = (getattr(self, name) for name in (*STATES, *(name.replace("real", "fake") for name in STATES)))
        return super().compute() if all(one.isfinite().all() for one in sums) else torch.tensor(torch.nan)


class Quality(L.Callback):
    """Measures `n` images of the averaged model, of all classes in turn, after validation and test.

    `<stage>/fd_<n>`: the Fréchet distance of their features to those of the training images (arXiv 1706.08500),
    `fid_<n>` for Inception's features. Any distance falls with n: compare at the same n.
    `<stage>/asked_class`: the share in which a classifier, fitted to the training images, sees the class asked for.

    The noise follows from the run's seed and differs between validation and test. Every device draws its share.

    Args:
        pixels: function from the model's samples (B, C, H, W) to pixels (B, 1 or 3, H', W') in 0..1.
        shape: (C, H, W).
        n: images; 0: nothing is measured.
        validate: after validations too, not only after the test.
        features: "pixels", "inception", or the name of a timm model.
        weights: file with the weights of the latter two; empty: the libraries fetch theirs.
        real: an .npz file with `mu` and `sigma` of the features of real images; empty: the training images'.
        classifier: "svm" or "none".
        cache: file that keeps the statistics of the training images.
        sampling: options of `DiTModule.generate`.

    Raises:
        ValueError: features or moments that cannot be loaded; in `setup`, too many images for the classifier, or fewer
            to draw than devices.
    """

    def __init__(
        self,
        pixels: Callable[[Tensor], Tensor],
        shape: Sequence[int],
        n: int = 0,
        validate: bool = True,
        features: str = "pixels",
        weights: str = "",
        real: str = "",
        classifier: str = "none",
        cache: Path | None = None,
        **sampling: Any,
    ) -> None:
        self.pixels, self.n, self.validate, self.sampling = pixels, n, validate, sampling
        self.cache, self.classifier = cache, classifier
        self.name = f"{'fid' if features == 'inception' else 'fd'}_{n}"
        self._metric: FrechetDistance | None = None
        self._reader: Classifier | None = None
        if n:
            self.features = make_features(
                features, weights, pixels(torch.zeros(1, *shape)).numel() if features == "pixels" else 0
            )
            self.moments = read_moments(real) if real else None
            if self.moments and len(self.moments[0]) != self.features.num_features:
                found, expected = len(self.moments[0]), self.features.num_features
                raise ValueError(f"real={real}: it has {found} features, and those of {features} are {expected}")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self.n and self.n < trainer.world_size:
            raise ValueError(f"n={self.n}: {trainer.world_size} devices draw at least one image each; take more, or 0")
        images = trainer.datamodule.sizes["train"]  # type: ignore[attr-defined]
        if self.n and self.classifier == "svm" and images > MAX_FITTED:
            raise ValueError(f"classifier=svm is for up to {MAX_FITTED} images, and these are {images}; take none")

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.n and self.validate:
            self._measure(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.n:
            self._measure(trainer, pl_module, "test")

    def _measure(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        assert isinstance(module, DiTModule)
        if self._metric is None:
            self._metric = self._prepare(trainer)
        metric, world, correct = self._metric, trainer.world_size, 0
        # Under FSDP every device must run the model equally often; what is drawn beyond n is left out.
        indices = range(module.global_rank, -(-self.n // world) * world, world)
        labels = [index % module.num_classes for index in indices]
        seeds = [mix(module.seed, STAGES[stage], index) for index in indices]
        first = 0
        for samples in module.generate(labels, seeds, **self.sampling):
            kept = sum(index < self.n for index in indices[first : first + len(samples)])
            if kept:
                images = self.pixels(samples[:kept])
                metric.update(images.to(metric.device), real=False)
                correct += self._reader.count(images, labels[first : first + kept]) if self._reader else 0
            first += len(samples)
        module.log(f"{stage}/{self.name}", metric.compute().float())
        metric.reset()
        if self._reader:
            share = torch.tensor(correct / self.n, device=trainer.strategy.root_device)
            module.log(f"{stage}/asked_class", trainer.strategy.reduce(share, reduce_op="sum"), prog_bar=True)

    def _prepare(self, trainer: L.Trainer) -> FrechetDistance:
        """Returns the metric with the statistics of real images in it, and fits the classifier."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        metric = FrechetDistance(self.features, reset_real_features=False)
        device = trainer.strategy.root_device
        metric.to("cpu" if device.type == "mps" else device)  # mps knows no float64
        if self.classifier == "svm":
            images, classes = zip(*DataLoader(data.originals(), 256), strict=True)
            self._reader = Classifier(torch.cat([self.pixels(one) for one in images]), torch.cat(classes))
        moments: Sequence[Tensor] | None = self.moments
        if moments is None:  # the first process looks: not all may see its disk, and all must do the same
            moments = trainer.strategy.broadcast(self._cached(data.sizes["train"]) if trainer.is_global_zero else None)
        if moments is None:
            moments = self._measure_real(trainer, metric)
        for name, value in zip(STATES, moments, strict=True):  # on one device, since compute() adds up all
            state = getattr(metric, name)
            setattr(metric, name, (value if trainer.is_global_zero else torch.zeros_like(value)).to(state))
        return metric

    def _measure_real(self, trainer: L.Trainer, metric: FrechetDistance) -> tuple[Tensor, ...]:
        """Returns sums over the features of the training images; every device sees its share of them."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        indices = range(trainer.global_rank, data.sizes["train"], trainer.world_size)
        for images, _ in DataLoader(Subset(data.originals(), indices), data.batch_size, num_workers=data.workers):
            metric.update(self.pixels(images.to(trainer.strategy.root_device)).to(metric.device), real=True)
        sums = [getattr(metric, name).double() for name in STATES]
        moments = tuple(trainer.strategy.reduce(one, reduce_op="sum").cpu() for one in sums)
        if self.cache is not None and trainer.is_global_zero:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            replace(self.cache, lambda path: torch.save(moments, path))
        return moments

    def _cached(self, number: int) -> tuple[Tensor, ...] | None:
        """Returns the statistics of an earlier run, if the file is there, complete, and of `number` images."""
        if self.cache is None:
            return None
        try:
            moments: tuple[Tensor, ...] = torch.load(self.cache, weights_only=True)
        except (EOFError, OSError, RuntimeError, UnpicklingError):
            return None
        return moments if moments[STATES.index("real_features_num_samples")] == number else None
