"""Measures of generated images: their distance from real ones, and the share that shows the class asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchmetrics.image.fid import FrechetInceptionDistance

from ...utils import mix
from .features import Features, make_features
from .module import DiTModule

SUMS = ("features_sum", "features_cov_sum", "features_num_samples")  # states of torchmetrics, each real_ and fake_
STAGES = {"val": 1, "test": 2}  # their samples start from different noise
MAX_FITTED = 20_000  # images, for the svm


class FrechetDistance(FrechetInceptionDistance):
    """torchmetrics' distance, with statistics of real images from a file, and NaN where features are not finite.

    Args:
        real: an .npz file with `mu` (F,) and `sigma` (F, F) of the features of real images; empty for none.

    Raises:
        ValueError: the file has other contents, or is not there.
    """

    def __init__(self, features: Features, real: str = "") -> None:
        super().__init__(features, reset_real_features=False)
        if not real:
            return
        try:
            with Path(real).expanduser().open("rb") as stream, np.load(stream) as arrays:
                mu, sigma = (torch.from_numpy(arrays[key].astype(np.float64)) for key in ("mu", "sigma"))
            if mu.shape != (features.num_features,) or sigma.shape != 2 * mu.shape:
                raise ValueError(f"it has mu {list(mu.shape)} and sigma {list(sigma.shape)}")
        except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
            expected = f"an npz file with mu and sigma of {features.num_features} features"
            raise ValueError(f"real={real}: expected {expected}: {error}") from error
        number = 2  # any will do
        moments = number * mu, (number - 1) * sigma + number * torch.outer(mu, mu), number
        for name, value in zip(SUMS, moments, strict=True):
            state = getattr(self, f"real_{name}")
            setattr(self, f"real_{name}", torch.as_tensor(value).to(state))

    def compute(self) -> Tensor:
        # torch.linalg.eigvals, which torchmetrics calls, corrupts memory on NaN in torch 2.15 with MKL
        finite = all(getattr(self, f"{kind}_{name}").isfinite().all() for kind in ("real", "fake") for name in SUMS)
        return super().compute() if finite else torch.tensor(torch.nan)


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
        classifier: "svm", which reads 98.5 % of the digits that it was not fitted to, or "none".
        sampling: options of `DiTModule.sampler`.

    Raises:
        ValueError: features or moments that cannot be loaded.
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
        **sampling: Any,
    ) -> None:
        self.pixels, self.n, self.validate, self.sampling = pixels, n, validate, sampling
        self.real, self.classifier = real, classifier
        self.name = f"{'fid' if features == 'inception' else 'fd'}_{n}"
        self._svm: Any = None
        self._prepared = False
        if n:
            size = pixels(torch.zeros(1, *shape)).numel() if features == "pixels" else 0
            self._metric = FrechetDistance(make_features(features, weights, size), real)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.n and self.validate:
            self._measure(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.n:
            self._measure(trainer, pl_module, "test")

    def _measure(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        assert isinstance(module, DiTModule)
        if not self._prepared:
            self._prepare(trainer, module)
        metric, rank, world, correct = self._metric, trainer.global_rank, trainer.world_size, 0
        # Under FSDP every device must run the model equally often; a sample beyond n, a device's last, is left out.
        indices, number = range(rank, -(-self.n // world) * world, world), len(range(rank, self.n, world))
        labels = [index % module.num_classes for index in indices]
        seeds = [mix(module.seed, STAGES[stage], index) for index in indices]
        first = 0
        for samples in module.sampler(**self.sampling).generate(labels, seeds, module.data.batch_size):
            rows = slice(first, min(first + len(samples), number))
            first += len(samples)
            if asked := labels[rows]:
                images = self.pixels(samples[: len(asked)])
                metric.update(images.to(metric.device), real=False)
                if self._svm is not None:
                    correct += (self._svm.predict(_flat(images)) == np.array(asked)).sum().item()
        module.log(f"{stage}/{self.name}", metric.compute().float())
        metric.reset()
        if self._svm is not None:
            share = torch.tensor(correct / self.n, device=trainer.strategy.root_device)
            module.log(f"{stage}/asked_class", trainer.strategy.reduce(share, reduce_op="sum"), prog_bar=True)

    def _prepare(self, trainer: L.Trainer, module: DiTModule) -> None:
        """Measures the training images, of which every device sees its share, and fits the classifier to them."""
        metric, data, device = self._metric, module.data, trainer.strategy.root_device
        metric.to("cpu" if device.type == "mps" else device)  # mps knows no float64
        if self.classifier == "svm":
            from sklearn.svm import SVC

            images, classes = data.some("train", MAX_FITTED)
            self._svm = SVC().fit(_flat(self.pixels(images)), classes.numpy())
        if not self.real:
            indices = range(trainer.global_rank, data.sizes["train"], trainer.world_size)
            for images, _ in DataLoader(Subset(data.originals(), indices), data.batch_size, num_workers=data.workers):
                metric.update(self.pixels(images.to(device)).to(metric.device), real=True)
        elif not trainer.is_global_zero:  # the metric adds up what all devices have
            for name in SUMS:
                getattr(metric, f"real_{name}").zero_()
        self._prepared = True


def _flat(images: Tensor) -> np.ndarray:
    return images.flatten(1).nan_to_num().cpu().numpy()
