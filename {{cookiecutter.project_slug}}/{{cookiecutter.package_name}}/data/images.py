"""Labelled images for training, with a deterministic split and augmentation."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ..utils import seed_all
from .base import DataModule
from .image_sources import MODES, Source, load
from .transforms import Collate, Transform, collate_with_mixup, image_transforms


class Split(NamedTuple):
    """The images of `source` that make up train, val or test."""

    source: Source
    indices: np.ndarray


class Images(DataModule):
    """Batches of images (B, C, H, W) and classes (B,), or class probabilities (B, num_classes) after Mixup or CutMix.

    Validation and test see the images without randomness.

    Args: the keys of configs/data/*.yaml, explained there, with `batch_size` of one device and forward pass, and
        seed: of the run. Order and augmentation follow from it, the epoch and the image; the split has its own seed.

    Attributes:
        num_classes, class_names: as found. `sizes` has the number of images in train, val and test.

    Raises:
        FileNotFoundError, ValueError: a data set that is missing, or other than the arguments say.
    """

    noun = "image"

    def __init__(
        self,
        dataset: str,
        img_size: int,
        in_chans: int,
        num_classes: int,
        batch_size: int,
        root: str = "",
        download: bool = False,
        input_key: str = "image",
        target_key: str = "label",
        background: str = "white",
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
        super().__init__(batch_size, workers, pin_memory, seed)
        sources = load(dataset, root, download, input_key, target_key, background)
        self.passed_over = sum(source.passed_over for source in sources.values())
        if "val" in sources and not test_fraction:
            # As in papers on ImageNet, whose test labels are not public.
            sources.setdefault("test", sources["val"])
        self.splits = divide(sources, {"test": test_fraction, "val": val_fraction}, split_seed)
        self.class_names = sources["train"].class_names
        self.num_classes = len(self.class_names)
        if num_classes not in (0, self.num_classes):
            where = f"{dataset} in {root}" if root else dataset
            raise ValueError(f"{where} has {self.num_classes} classes, not num_classes={num_classes}; 0 counts them")
        self.img_size, self.in_chans = img_size, in_chans
        self.train_transform, self.eval_transform = image_transforms(
            img_size, in_chans, mean, std, interpolation, crop_pct, augment or {}
        )
        self.train_collate = collate_with_mixup(mixup or {}, self.num_classes, batch_size)

    @property
    def found(self) -> dict[str, Any]:
        return {"img_size": self.img_size, "in_chans": self.in_chans, "num_classes": self.num_classes}

    @property
    def notes(self) -> list[str]:
        names = shorten(", ".join(self.class_names), 100, placeholder=" ...")
        left_out = f"left out: {self.passed_over} files that are hidden, or no images by their endings"
        return [f"classes: {names}", *([left_out] if self.passed_over else [])]

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split.indices) for name, split in self.splits.items()}

    def use_classes(self, class_names: Sequence[str]) -> None:
        super().use_classes(class_names)
        self.class_names = list(class_names)
        for name, (source, indices) in self.splits.items():
            self.splits[name] = Split(source.with_classes(self.class_names), indices)

    def dataset(self, split: str) -> "ImageSet":
        if split != "train":
            return ImageSet(self.splits[split], MODES[self.in_chans], self.eval_transform)
        return ImageSet(self.splits["train"], MODES[self.in_chans], self.train_transform, self.seed)

    def originals(self) -> "ImageSet":
        return ImageSet(self.splits["train"], MODES[self.in_chans], self.eval_transform)

    def collate(self, split: str) -> Collate:
        return self.train_collate if split == "train" else default_collate


class ImageSet(Dataset[tuple[Tensor, int]]):
    """A split with its transform. Keys are the sampler's (epoch, index); a plain index is that of epoch 0.

    Args:
        seed: transforms draw from the global generators, which are seeded for each image; None for no randomness.
    """

    def __init__(self, split: Split, mode: str, transform: Transform, seed: int | None = None) -> None:
        self.source, self.indices = split
        self.mode, self.transform, self.seed = mode, transform, seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[Tensor, int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if self.seed is not None:
            seed_all(self.seed, epoch, index)
        number = int(self.indices[index])
        return self.transform(self.source.image(number, self.mode)), int(self.source.targets[number])


def divide(sources: Mapping[str, Source], fractions: Mapping[str, float], seed: int) -> dict[str, Split]:
    """Returns train, val and test; a split that is missing gets its fraction of the images of train, stratified.

    Raises:
        ValueError: nothing is left to train on.
    """
    splits = {name: Split(source, np.arange(len(source.targets))) for name, source in sources.items()}
    source, everything = splits["train"]
    missing = [name for name in fractions if name not in splits]
    sizes = [max(1, round(fractions[name] * len(everything))) if fractions[name] else 0 for name in missing]
    if sum(sizes) >= len(everything):
        shares = ", ".join(f"{name} {fractions[name]}" for name in missing)
        raise ValueError(f"the fractions of {shares} leave none of {len(everything)} images to train on")
    *parts, rest = stratified_split(source.targets, sizes, seed)
    parts_by_name = {name: Split(source, part) for name, part in zip(missing, parts, strict=True)}
    return {**splits, **parts_by_name, "train": Split(source, rest)}


def stratified_split(targets: np.ndarray, sizes: Sequence[int], seed: int) -> list[np.ndarray]:
    """Returns sorted index arrays of these sizes and of the rest; each has its share of every class, within one."""
    random = np.random.RandomState(seed)  # frozen for ever, unlike default_rng
    left = random.permutation(len(targets))
    left = left[np.argsort(targets[left], kind="stable")]  # by class, in random order within a class
    parts = []
    for size in sizes:
        evenly_spaced = ((np.arange(size) + 0.5) * (len(left) / max(1, size))).astype(int)
        parts.append(np.sort(left[evenly_spaced]))
        left = np.delete(left, evenly_spaced)
    return [*parts, np.sort(left)]


def pixels(section: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Returns a function from normalised images (B, C, H, W) to pixels in 0..1, fp32 on the CPU.

    Args:
        section: `data` of a config.
    """
    mean, std = (torch.tensor(list(section[key]), dtype=torch.float32)[:, None, None] for key in ("mean", "std"))
    return lambda images: (images.detach().float().cpu() * std + mean).clamp(0, 1)
