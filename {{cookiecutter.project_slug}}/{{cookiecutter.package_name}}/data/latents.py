"""Latents of images, as prepare.py makes them: their files, and the data module of data=latents.

A folder has shards, labels, and a meta.json:

    {"format": 1, "shape": [4, 32, 32], "scaling_factor": 0.18215, "shift_factor": 0.0, "vae": "/path/to/vae",
     "img_size": 256, "classes": ["tench", ...],
     "splits": {"train": {"labels": "train-labels.npy", "shards": [{"file": "train-00000.npy", "images": 4096}, ...]},
                "val": ..., "test": ...},
     "made_from": {...}, "source": ...}                              (see prepared.py)

A shard is (images, 2, 2, *shape), float16: mean and standard deviation of the latent of an image, then of its mirror
image, as the autoencoder gives them. Scale and shift are applied when they are read. Labels are (images,), int64.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..utils import mix
from . import prepared
from .base import DataModule
from .prepared import AGAIN, META

FORMAT = 1
SPLITS = ("train", "val", "test")
DTYPE = np.dtype(np.float16)


class Split(NamedTuple):
    """A split on disk.

    Args:
        files: the shards.
        ends: number of images in each shard and those before it.
        labels: (N,) int64.
    """

    files: list[Path]
    ends: list[int]
    labels: np.ndarray

    def read(self, index: int) -> np.ndarray:
        """Returns mean and standard deviation of an image and of its mirror image (2, 2, C, h, w)."""
        shard = bisect_right(self.ends, index)
        return open_shard(self.files[shard])[index - (self.ends[shard - 1] if shard else 0)]


class Latents(DataModule):
    """Batches of latents (B, C, h, w), fp32, of about unit variance, and classes (B,).

    Training draws each latent anew from the distribution that the autoencoder gives, of the image or of its mirror
    image. Validation and test see the mean of the image's.

    Args: the keys of configs/data/latents.yaml, explained there, with `batch_size` of one device and forward pass, and
        seed: of the run. Order, mirroring and noise follow from it, the epoch and the image.

    Attributes:
        num_classes, class_names: as prepared. `sizes` has the number of images in train, val and test.

    Raises:
        ValueError: latents that are missing, damaged or other than the arguments say.
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
        folder, meta = Path(root).expanduser(), read_meta(root)
        with prepared.reading(folder / META):
            self.in_chans, self.img_size, _ = shape = [int(size) for size in meta["shape"]]
            self.scale, self.shift = float(meta["scaling_factor"]), float(meta["shift_factor"])
            self.class_names = [str(one) for one in meta["classes"]]
            self.num_classes, self.hflip = len(self.class_names), hflip
            self.splits = {one: read_split(folder, meta["splits"][one], shape, self.num_classes) for one in SPLITS}
        for key, value in {"img_size": img_size, "in_chans": in_chans, "num_classes": num_classes}.items():
            if value not in (0, self.found[key]):
                raise ValueError(f"the latents in {root} have {key}={self.found[key]}, not {value}; 0 takes that")

    @property
    def found(self) -> dict[str, Any]:
        return {"img_size": self.img_size, "in_chans": self.in_chans, "num_classes": self.num_classes}

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(split.labels) for name, split in self.splits.items()}

    def dataset(self, split: str) -> "LatentSet":
        return LatentSet(
            self.splits[split], self.scale, self.shift, self.hflip, self.seed if split == "train" else None
        )

    def originals(self) -> "LatentSet":
        return LatentSet(self.splits["train"], self.scale, self.shift)


class LatentSet(Dataset[tuple[Tensor, int]]):
    """A split as (latent - shift) * scale. Keys are the sampler's (epoch, index); a plain index is that of epoch 0.

    Args:
        hflip: probability of the mirror image.
        seed: mirroring and noise follow from it, the epoch and the index; None gives the mean of the image itself.
    """

    def __init__(self, split: Split, scale: float, shift: float, hflip: float = 0.0, seed: int | None = None) -> None:
        self.split, self.scale, self.shift, self.hflip, self.seed = split, scale, shift, hflip, seed

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[Tensor, int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        stored = torch.from_numpy(self.split.read(index).astype(np.float32))
        if self.seed is None:
            latent = stored[0, 0]
        else:
            # The objective may draw its noise from the same three numbers: a fourth makes this noise another one.
            random = torch.Generator().manual_seed(mix(self.seed, epoch, index, 3))
            mean, std = stored[int(torch.rand((), generator=random) < self.hflip)]
            latent = mean + std * torch.randn(mean.shape, generator=random)
        return (latent - self.shift) * self.scale, int(self.split.labels[index])


def read_meta(root: str) -> dict[str, Any]:
    """Returns the meta.json of a folder of latents."""
    return prepared.read_meta(root, "images=... out=... vae=...", FORMAT)


def read_split(folder: Path, entry: Mapping[str, Any], shape: Sequence[int], num_classes: int) -> Split:
    """Returns a split, whose files are checked against its entry in meta.json without reading the latents.

    Raises:
        ValueError: a file is missing, damaged or of another shape.
    """
    files = [folder / shard["file"] for shard in entry["shards"]]
    lengths = [int(shard["images"]) for shard in entry["shards"]]
    for file, length in zip(files, lengths, strict=True):
        _read(file, (length, 2, 2, *shape), DTYPE, mmap_mode="r")
    labels = _read(folder / entry["labels"], (sum(lengths),), np.dtype(np.int64))
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"{folder / entry['labels']} has classes beyond the {num_classes} of {META}; {AGAIN}")
    return Split(files, list(accumulate(lengths)), labels)


def _read(file: Path, shape: tuple[int, ...], dtype: np.dtype, **options: Any) -> np.ndarray:
    try:
        array = np.load(file, **options)
    except (EOFError, OSError, ValueError) as error:
        raise ValueError(f"{file} is missing or damaged ({error}); {AGAIN}") from error
    if (array.shape, array.dtype) != (shape, dtype):
        found, expected = f"{array.dtype} {array.shape}", f"{dtype} {shape}"
        raise ValueError(f"{file} holds {found}, and {META} says {expected}; {AGAIN}")
    return array


@lru_cache(512)  # each takes a file descriptor, of which many systems allow a process 1,024
def open_shard(file: Path) -> np.ndarray:
    """Returns the array of a shard, mapped and not loaded."""
    return np.load(file, mmap_mode="r")
