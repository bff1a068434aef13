"""Labelled images: the data module of every file in configs/data/ that says `module: images`."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import require
from ..seeding import seed_all
from .base import DataModule
from .images_sources import CLASSES, TORCHVISION, Split, divide, download, folder_classes, load
from .images_transforms import image_transforms, mixing_collate
from .sampling import ResumableLoader, SeededSampler, rank_and_world

NAMES = (*CLASSES, "imagenet", "folder")
MAX_WORKERS = 1024  # beyond any machine: a slip of the keyboard
MODES = {1: "L", 3: "RGB"}  # Pillow's, by number of channels


class Images(DataModule):
    """Batches of images (B, C, H, W) and classes (B,), or class probabilities (B, num_classes) after Mixup or CutMix.

    Every optimiser step sees the same number of images; an epoch leaves out those that do not fill one. Validation and
    test see every image once, on any number of devices, and without randomness.

    Args: the keys of configs/data/*.yaml, explained there, with `batch_size` made out, and
        seed: of the run. Order and augmentation follow from it, the epoch and the image; the split has its own seed.

    Attributes:
        num_classes, class_names: as counted. `sizes` has the number of images in train, val and test.

    Raises:
        UsageError: a value out of range, or a data set that is missing or other than the values say. With `download`,
            files are looked at in `prepare_data` and not before. Whether there are enough to train on says
            `check_trainable`.
    """

    def __init__(
        self,
        name: str,
        img_size: int,
        in_chans: int,
        num_classes: int,
        batch_size: int,
        root: str = "",
        download: bool = False,
        val_fraction: float = 0.0,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        workers: int = 0,
        pin_memory: bool = True,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        interpolation: str = "bicubic",
        crop_pct: float = 1.0,
        augment: Mapping[str, Any] | None = None,
        mixup: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require(name in NAMES, f"data.name={name}: choose from {', '.join(NAMES)}")
        require(img_size >= 1, f"data.img_size={img_size}: expected at least 1 pixel")
        require(in_chans in MODES, f"data.in_chans={in_chans}: expected 1 (grey) or 3 (colour)")
        require(batch_size >= 1, f"data.batch_size={batch_size}: expected at least 1 image per device and forward pass")
        sane = 0 <= workers <= MAX_WORKERS
        require(sane, f"data.workers={workers}: expected 0 (the main process loads) to {MAX_WORKERS}")
        require(0 <= split_seed < 2**32, f"data.split_seed={split_seed}: expected a whole number from 0 to {2**32 - 1}")
        require(0 <= val_fraction < 1, f"data.val_fraction={val_fraction}: expected 0 or more, and less than 1")
        require(0 <= test_fraction < 1, f"data.test_fraction={test_fraction}: expected 0 or more, and less than 1")
        both = val_fraction + test_fraction
        require(both < 1, f"data.val_fraction + data.test_fraction = {both:g}: that leaves nothing to train on")

        self.dataset_name, self.root, self.download = name, Path(root).expanduser(), download
        self.class_names = list(CLASSES[name]) if name in CLASSES else folder_classes(name, root, self.root)
        self.num_classes = len(self.class_names)
        found = f"{name} in {root} has {self.num_classes}" if root else f"{name} has {self.num_classes}"
        require(num_classes in (0, self.num_classes), f"data.num_classes={num_classes}: {found}, and 0 counts them")
        self.img_size, self.in_chans = img_size, in_chans
        self.batch_size, self.workers, self.pin_memory = batch_size, min(workers, cpu_count()), pin_memory
        self.fractions, self.split_seed, self.seed = {"test": test_fraction, "val": val_fraction}, split_seed, seed
        self.train_transform, self.eval_transform = image_transforms(
            img_size, in_chans, mean, std, interpolation, crop_pct, augment or {}
        )
        self.collate = mixing_collate(mixup or {}, self.num_classes, batch_size)
        if not download:
            _ = self.splits

    @cached_property
    def splits(self) -> dict[str, Split]:
        return divide(load(self.dataset_name, self.root, self.class_names), self.fractions, self.split_seed)

    @property
    def found(self) -> dict[str, Any]:
        """What looking at the data told of the keys of its section in the config."""
        return {"num_classes": self.num_classes}

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split.indices) for name, split in self.splits.items()}

    def prepare_data(self) -> None:
        if self.download and self.dataset_name in TORCHVISION:
            download(self.dataset_name, self.root)
        _ = self.splits

    def check_trainable(self, batches: int = 1) -> None:
        """Refuses to train on fewer images than one optimiser step takes; evaluation needs no check.

        Args:
            batches: in a step, over all devices and accumulation.

        Raises:
            UsageError: as said.
        """
        size, step = self.sizes["train"], self.batch_size * batches
        smaller = "lower data.total_batch_size or data.batch_size"
        require(size >= step, f"data: one step takes {step} images, but there are {size} to train on; {smaller}")

    def train_dataloader(self) -> ResumableLoader:
        rank, world = rank_and_world(self.trainer)
        accumulate = self.trainer.accumulate_grad_batches if self.trainer is not None else 1
        self.check_trainable(world * accumulate)
        dataset = ImageSet(self.splits["train"], MODES[self.in_chans], self.train_transform, self.seed)
        multiple = self.batch_size * accumulate
        sampler = SeededSampler(len(dataset), self.seed, shuffle=True, rank=rank, world=world, multiple=multiple)
        return ResumableLoader(dataset, self.trainer, sampler=sampler, collate_fn=self.collate, **self._options())

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        return self._eval_loader("test")

    def _eval_loader(self, name: str) -> DataLoader[Any] | list[DataLoader[Any]]:
        rank, world = rank_and_world(self.trainer)
        dataset = ImageSet(self.splits[name], MODES[self.in_chans], self.eval_transform)
        if len(dataset) == 0:
            return []
        require(len(dataset) >= world, f"data: {len(dataset)} image(s) in {name} are too few for {world} devices")
        return DataLoader(dataset, sampler=SeededSampler(len(dataset), rank=rank, world=world), **self._options())

    def _options(self) -> dict[str, Any]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {
            "batch_size": self.batch_size,
            "num_workers": self.workers,
            "persistent_workers": self.workers > 0,
            "pin_memory": self.pin_memory and on_gpu,
        }


class ImageSet(Dataset[tuple[Tensor, int]]):
    """A split with its transform. Keys are the sampler's (epoch, index); a plain index is that of epoch 0.

    Args:
        seed: transforms draw from the global generators, which are seeded anew for each image; None for no randomness.
    """

    def __init__(
        self, split: Split, mode: str, transform: Callable[[Image.Image], Tensor], seed: int | None = None
    ) -> None:
        self.source, self.indices = split
        self.mode, self.transform, self.seed = mode, transform, seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[Tensor, int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if self.seed is not None:
            seed_all(self.seed, epoch, index)
        number = int(self.indices[index])
        return self.transform(self.source[number].convert(self.mode)), int(self.source.targets[number])


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build(**settings: Any) -> Images:
    """The data module of a config's section `data`."""
    return Images(**settings)
