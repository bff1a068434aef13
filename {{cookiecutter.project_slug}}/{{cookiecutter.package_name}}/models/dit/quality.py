"""How good generated images are, in numbers: how far they are from the real ones, and whether they show their class."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchmetrics.image.fid import FrechetInceptionDistance

from ...data.base import DataModule
from ...errors import require
from ...utils import mix, replace
from .features import Classifier, make_features, read_moments

if TYPE_CHECKING:
    from .module import DiTModule

STATES = ("real_features_sum", "real_features_cov_sum", "real_features_num_samples")
STAGES = {"val": 1, "test": 2}  # whose samples come from other noise
CLASSIFIERS = ("svm", "none")
FEW = 20_000  # images at most, for the svm

Pixels = Callable[[Tensor], Tensor]


class FrechetDistance(FrechetInceptionDistance):
    """torchmetrics' distance, and NaN where the features of either side are not finite.

    torch.linalg.eigvals of a matrix of NaN, which torchmetrics would call then, corrupts memory in torch 2.15 with MKL.
    """

    def compute(self) -> Tensor:
        sums = (getattr(self, name) for name in (*STATES, *(name.replace("real", "fake") for name in STATES)))
        return super().compute() if all(one.isfinite().all() for one in sums) else torch.tensor(torch.nan)


class Quality(L.Callback):
    """After validation and test, of `n` images that the averaged net draws, of all classes in turn:

    `<stage>/fd_<n>`: the Fréchet distance of their features to those of the training images (Heusel et al. 2017, arXiv
    1706.08500), `fid_<n>` if the features are Inception's. Any distance falls with n: compare at the same n.
    `<stage>/asked_class`: the share in which a classifier, fitted to the training images, sees the class asked for.

    The noise follows from the run's seed, and is another in validation and test. Every device draws its share.

    Args:
        pixels: what the net works on (B, C, H, W) -> pixels (B, 1 or 3, H', W') in 0..1.
        shape: (C, H, W).
        n: images; 0: nothing is measured.
        steps: of the sampler.
        sampler: one of the objective's; empty: its first.
        guidance, interval: see `models/dit_sampling.Guided`. What `check_sampling` there refuses is not looked at here.
        validate: after validations too, not after the test alone.
        features: "pixels", "inception", or the name of a timm model.
        weights: file with the weights of the latter two; empty: the libraries fetch theirs.
        real: an .npz file with `mu` and `sigma` of the features of real images; empty: the training images'.
        classifier: "svm" or "none".
        cache: file in which the statistics of the training images are kept; None for nowhere.

    Raises:
        UsageError: a value out of range, features that cannot be loaded, or statistics of others; in `setup`, data that
            are too many for the classifier, or more devices than images to draw.
    """

    def __init__(
        self,
        pixels: Pixels,
        shape: Sequence[int],
        n: int = 0,
        steps: int = 50,
        sampler: str = "",
        guidance: float = 1.0,
        interval: Sequence[float] = (0.0, 1.0),
        validate: bool = True,
        features: str = "pixels",
        weights: str = "",
        real: str = "",
        classifier: str = "none",
        cache: Path | None = None,
    ) -> None:
        require(n == 0 or n >= 2, f"task.quality.n={n}: expected 2 or more, or 0 (off)")
        known = classifier in CLASSIFIERS
        require(known, f"task.quality.classifier={classifier}: choose from {', '.join(CLASSIFIERS)}")
        self.pixels, self.n, self.validate = pixels, n, validate
        self.how = {"steps": steps, "guidance": guidance, "interval": tuple(interval)}
        self.how |= {"sampler": sampler} if sampler else {}
        self.features, self.cache = features, cache
        self.classifier = classifier
        if not n:
            return
        counted = pixels(torch.zeros(1, *shape)).numel() if features == "pixels" else 0
        self.extractor = make_features(features, weights, counted)
        self.moments = read_moments(real) if real else None
        found, expected = len(self.moments[0]) if self.moments else 0, self.extractor.num_features
        fits = found in (0, expected)
        require(fits, f"task.quality.real={real}: it has {found} features, and those of {features} are {expected}")
        self._metric: FrechetInceptionDistance | None = None
        self._reader: Classifier | None = None

    @property
    def name(self) -> str:
        """Of the distance."""
        return f"{'fid' if self.features == 'inception' else 'fd'}_{self.n}"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        busy = not self.n or self.n >= trainer.world_size
        idle = f"{trainer.world_size} devices draw them, each at least one; take more, or 0 (off)"
        require(busy, f"task.quality.n={self.n}: {idle}")
        number = trainer.datamodule.sizes["train"]  # type: ignore[attr-defined]
        few = not self.n or self.classifier == "none" or number <= FEW
        require(few, f"task.quality.classifier=svm: it is for small data, and these are {number} images; take none")

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.n and self.validate:
            self._measure(trainer, cast("DiTModule", pl_module), "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.n:
            self._measure(trainer, cast("DiTModule", pl_module), "test")

    def _measure(self, trainer: L.Trainer, task: "DiTModule", stage: str) -> None:
        metric = self._metric or self._prepare(trainer)
        self._metric = metric
        classes, right = task.num_classes, 0
        world = trainer.world_size
        # everyone runs the net equally often, which the others may wait for; what is too many is left out
        places = range(task.global_rank, -(-self.n // world) * world, world)
        labels = [place % classes for place in places]
        seeds = [mix(task.seed, STAGES[stage], place) for place in places]
        drawn = 0
        for samples in self._computed_as_trained(trainer, task.generate(labels, seeds, **self.how)):
            wanted = sum(place < self.n for place in places[drawn : drawn + len(samples)])
            asked = labels[drawn : drawn + wanted]
            drawn += len(samples)
            if wanted:
                images = self.pixels(samples[:wanted])
                metric.update(images.to(metric.device), real=False)
                right += self._reader.count(images, asked) if self._reader else 0
        task.log(f"{stage}/{self.name}", metric.compute().float())
        metric.reset()
        if self._reader:
            share = torch.tensor(right / self.n, device=trainer.strategy.root_device)
            task.log(f"{stage}/asked_class", trainer.strategy.reduce(share, reduce_op="sum"), prog_bar=True)

    def _computed_as_trained(self, trainer: L.Trainer, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """In the trainer's precision, which is that of the net and not of the features."""
        while True:
            with trainer.strategy.precision_plugin.forward_context():
                samples = next(batches, None)
            if samples is None:
                return
            yield samples

    def _prepare(self, trainer: L.Trainer) -> FrechetInceptionDistance:
        """The metric with the real images' statistics in it, and the classifier, on first use."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        originals = data.originals()
        metric = FrechetDistance(self.extractor, reset_real_features=False)
        device = trainer.strategy.root_device
        metric.to("cpu" if device.type == "mps" else device)  # which knows no float64
        if self.classifier == "svm":
            self._reader = Classifier(*_everything(originals, self.pixels))
        moments: Sequence[Tensor] | None = self.moments
        if moments is None:
            # the first one looks: not all may see its disk, and those who measure wait for each other
            moments = trainer.strategy.broadcast(self._kept(data.sizes["train"]) if trainer.is_global_zero else None)
        if moments is None:
            moments = self._measure_real(trainer, metric, data, originals)
        for name, value in zip(STATES, moments, strict=True):  # once among the devices, whose sums are added up
            state = getattr(metric, name)
            setattr(metric, name, (value if trainer.is_global_zero else torch.zeros_like(value)).to(state))
        return metric

    def _measure_real(
        self, trainer: L.Trainer, metric: FrechetInceptionDistance, data: DataModule, originals: Dataset[Any]
    ) -> tuple[Tensor, ...]:
        """Sums over the features of the training images, of which every device sees its share."""
        places = range(trainer.global_rank, data.sizes["train"], trainer.world_size)
        for images, _ in DataLoader(Subset(originals, places), data.batch_size, num_workers=data.workers):
            metric.update(self.pixels(images.to(trainer.strategy.root_device)).to(metric.device), real=True)
        moments = tuple(
            trainer.strategy.reduce(getattr(metric, name).double(), reduce_op="sum").cpu() for name in STATES
        )
        if self.cache is not None and trainer.is_global_zero:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            replace(self.cache, lambda path: torch.save(moments, path))
        return moments

    def _kept(self, number: int) -> tuple[Tensor, ...] | None:
        """The statistics that an earlier run has measured, if the file is there and whole, and of `number` images."""
        if self.cache is None:
            return None
        try:
            moments: tuple[Tensor, ...] = torch.load(self.cache, weights_only=True)
        except (EOFError, OSError, RuntimeError, UnpicklingError):
            return None
        return moments if moments[STATES.index("real_features_num_samples")] == number else None


def _everything(originals: Dataset[Any], pixels: Pixels) -> tuple[Tensor, Tensor]:
    """Pixels (N, C, H, W) and classes (N,) of all training images."""
    batches = [(pixels(images), classes) for images, classes in DataLoader(originals, 256)]
    return torch.cat([images for images, _ in batches]), torch.cat([classes for _, classes in batches])
