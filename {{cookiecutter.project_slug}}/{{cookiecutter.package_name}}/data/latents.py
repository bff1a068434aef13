"""Latents of images, as prepare.py has made them: the data module of data=latents."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import require
from ..utils import mix
from .base import DataModule
from .latents_shards import Prepared, shards


class Latents(DataModule):
    """Batches of latents (B, C, h, w), fp32, of about unit variance, and classes (B,).

    Training draws each latent anew from the distribution that the autoencoder gives, of the image or of its mirror
    image. Validation and test see the mean of the image's.

    Args: the keys of configs/data/latents.yaml, explained there, with `batch_size` made out, and
        seed: of the run. Order, mirroring and noise follow from it, the epoch and the image.

    Attributes:
        num_classes, class_names: as prepared. `sizes` has the number of images in train, val and test.

    Raises:
        UsageError: a value out of range, or latents that are missing, damaged or other than the values say.
    """

    noun = "image"

    def __init__(
        self,
        name: str,
        root: str,
        batch_size: int,
        vae: str = "",
        img_size: int = 0,
        in_chans: int = 0,
        num_classes: int = 0,
        workers: int = 0,
        pin_memory: bool = True,
        hflip: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, pin_memory, seed)
        require(name == "latents", f"data.name={name}: expected latents")
        require(0 <= hflip <= 1, f"data.hflip={hflip}: expected a probability, 0 to 1")
        self.prepared = shards(root)
        self.in_chans, self.img_size, width = self.prepared.shape
        require(self.img_size == width, f"{root}: latents of {self.img_size} x {width} are not square")
        self.class_names = self.prepared.classes
        self.num_classes = len(self.class_names)
        given = {"img_size": img_size, "in_chans": in_chans, "num_classes": num_classes}
        for key, value in given.items():
            found = self.found[key]
            require(value in (0, found), f"data.{key}={value}: the latents in {root} have {found}, and 0 takes that")
        self.hflip = hflip

    @property
    def found(self) -> dict[str, Any]:
        """What looking at the data told of the keys of its section in the config."""
        return {"img_size": self.img_size, "in_chans": self.in_chans, "num_classes": self.num_classes}

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split.labels) for name, split in self.prepared.splits.items()}

    def dataset(self, split: str) -> "LatentSet":
        if split == "train":
            return LatentSet(self.prepared, split, self.hflip, self.seed)
        return LatentSet(self.prepared, split)

    def originals(self) -> "LatentSet":
        """The training images in order: the means of their latents, none of them mirrored."""
        return LatentSet(self.prepared, "train")


class LatentSet(Dataset[tuple[Tensor, int]]):
    """A split. Keys are the sampler's (epoch, index); a plain index is that of epoch 0.

    Args:
        hflip: probability of the mirror image.
        seed: mirroring and noise are drawn from it, the epoch and the index; None: the mean of the image itself.
    """

    def __init__(self, prepared: Prepared, split: str, hflip: float = 0.0, seed: int | None = None) -> None:
        self.latents, self.labels = prepared.splits[split]
        self.scale, self.shift = prepared.scale, prepared.shift
        self.hflip, self.seed = hflip, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[Tensor, int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        stored = self.latents[index]  # (2, 2, C, h, w): image and mirror image; mean and std
        if self.seed is None:
            latent = as_tensor(stored[0, 0])
        else:
            # What is trained on this may draw its own noise from the same three numbers: a fourth keeps them apart.
            random = torch.Generator().manual_seed(mix(self.seed, epoch, index, 3))
            mirrored = int(torch.rand((), generator=random) < self.hflip)
            mean, std = as_tensor(stored[mirrored])
            latent = mean + std * torch.randn(mean.shape, generator=random)
        return (latent - self.shift) * self.scale, int(self.labels[index])


def as_tensor(array: Any) -> Tensor:
    return torch.from_numpy(array.astype("float32"))
