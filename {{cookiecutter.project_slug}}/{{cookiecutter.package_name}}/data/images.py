"""Labelled images: the data module of every file in configs/data/ that says `module: images`."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ..errors import require
from ..utils import seed_all
from .base import DataModule, check_fractions
from .images_sources import CLASSES, TORCHVISION, Split, divide, download, folder_classes, load
from .images_transforms import image_transforms, mixing_collate

NAMES = (*CLASSES, "imagenet", "folder")
MODES = {1: "L", 3: "RGB"}  # Pillow's, by number of channels


class Images(DataModule):
    """Batches of images (B, C, H, W) and classes (B,), or class probabilities (B, num_classes) after Mixup or CutMix.

    Validation and test see the images without randomness.

    Args: the keys of configs/data/*.yaml, explained there, with `batch_size` made out, and
        seed: of the run. Order and augmentation follow from it, the epoch and the image; the split has its own seed.

    Attributes:
        num_classes, class_names: as counted. `sizes` has the number of images in train, val and test.

    Raises:
        UsageError: a value out of range, or a data set that is missing or other than the values say. With `download`,
            files are looked at in `prepare_data` and not before. Whether there are enough to train on says
            `check_trainable`.
    """

    noun = "image"

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
        super().__init__(batch_size, workers, pin_memory, seed)
        require(name in NAMES, f"data.name={name}: choose from {', '.join(NAMES)}")
        require(img_size >= 1, f"data.img_size={img_size}: expected at least 1 pixel")
        require(in_chans in MODES, f"data.in_chans={in_chans}: expected 1 (grey) or 3 (colour)")
        require(0 <= split_seed < 2**32, f"data.split_seed={split_seed}: expected a whole number from 0 to {2**32 - 1}")
        check_fractions(val_fraction, test_fraction)

        self.dataset_name, self.root, self.download = name, Path(root).expanduser(), download
        self.class_names = list(CLASSES[name]) if name in CLASSES else folder_classes(name, root, self.root)
        self.num_classes = len(self.class_names)
        found = f"{name} in {root} has {self.num_classes}" if root else f"{name} has {self.num_classes}"
        require(num_classes in (0, self.num_classes), f"data.num_classes={num_classes}: {found}, and 0 counts them")
        self.img_size, self.in_chans = img_size, in_chans
        self.fractions, self.split_seed = {"test": test_fraction, "val": val_fraction}, split_seed
        self.train_transform, self.eval_transform = image_transforms(
            img_size, in_chans, mean, std, interpolation, crop_pct, augment or {}
        )
        self.mix = mixing_collate(mixup or {}, self.num_classes, batch_size)
        if not download:
            _ = self.splits

    @cached_property
    def splits(self) -> dict[str, Split]:
        return divide(load(self.dataset_name, self.root, self.class_names), self.fractions, self.split_seed)

    @property
    def found(self) -> dict[str, Any]:
        """What looking at the data told of the keys of its section in the config."""
        return {"img_size": self.img_size, "in_chans": self.in_chans, "num_classes": self.num_classes}

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split.indices) for name, split in self.splits.items()}

    def prepare_data(self) -> None:
        if self.download and self.dataset_name in TORCHVISION:
            download(self.dataset_name, self.root)
        _ = self.splits

    def dataset(self, split: str) -> "ImageSet":
        images, mode = self.splits[split], MODES[self.in_chans]
        if split == "train":
            return ImageSet(images, mode, self.train_transform, self.seed)
        return ImageSet(images, mode, self.eval_transform)

    def originals(self) -> "ImageSet":
        """The training images as validation would see them, in order."""
        return ImageSet(self.splits["train"], MODES[self.in_chans], self.eval_transform)

    def collate(self, split: str) -> Callable[[list[Any]], Any]:
        return self.mix if split == "train" else default_collate


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
