"""Prepared latents on disk: arrays that numpy maps, and a meta.json that says what they are.

    {"format": 1, "shape": [4, 32, 32], "scaling_factor": 0.18215, "shift_factor": 0.0, "vae": "/path/to/vae",
     "img_size": 256, "classes": ["tench", ...],
     "splits": {"train": {"labels": "train-labels.npy", "shards": [{"file": "train-00000.npy", "images": 4096}, ...]},
                "val": ..., "test": ...},
     "made_from": {...}}                                        (the settings of prepare.py)

A shard is (images, 2, 2, *shape), float16: of an image and of its mirror image, mean and standard deviation of its
latent. These are as the autoencoder gives them: scale and shift are applied when they are read. Labels are (images,),
int64, of a whole split.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError, require
from . import prepared
from .prepared import AGAIN, META

FORMAT = 1
SPLITS = ("train", "val", "test")
SCRIPT = "prepare.py"
DTYPE = np.dtype(np.float16)
# Files mapped at a time: shuffled reading goes through all of a split, and ImageNet's training images are in 313. Each
# takes a file descriptor, of which many systems allow a process 1,024.
MAX_OPEN = 512


class Shards:
    """Latents of all shards, one after the other: [index] -> (2, 2, C, h, w), mapped when they are first read."""

    def __init__(self, files: Sequence[Path], lengths: Sequence[int]) -> None:
        self.files, self.lengths = files, lengths
        self.ends = list(accumulate(lengths))
        self._array = lru_cache(MAX_OPEN)(self._mapped)

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> np.ndarray:
        number = bisect_right(self.ends, index)
        return self._array(number)[index - self.ends[number] + self.lengths[number]]

    def _mapped(self, number: int) -> np.ndarray:
        return np.load(self.files[number], mmap_mode="r")

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, (self.files, self.lengths)  # workers map the files themselves


class Split(NamedTuple):
    latents: Shards
    labels: np.ndarray  # (N,) int64


class Prepared(NamedTuple):
    """What is in a folder of latents. (latent - shift) * scale is what a net is trained on."""

    splits: dict[str, Split]
    shape: tuple[int, int, int]
    scale: float
    shift: float
    classes: list[str]
    vae: str


def gigabytes(images: int, shape: Sequence[int]) -> float:
    return images * 4 * DTYPE.itemsize * math.prod(shape) / 1e9


def read_meta(given: str) -> dict[str, Any]:
    """The meta.json of a folder of latents, `given` as the user wrote it.

    Raises:
        UsageError: it is not there, or not of this format.
    """
    return prepared.read_meta(given, "images=... out=... vae=...", "*.npy", FORMAT)


def shards(given: str) -> Prepared:
    """The latents of a folder, checked against its meta.json without reading them.

    Raises:
        UsageError: a shard is missing, damaged or of another shape, or meta.json does not go with itself.
    """
    meta = read_meta(given)
    root = Path(given).expanduser()
    try:
        channels, height, width = map(int, meta["shape"])
        shape, classes = (channels, height, width), [str(name) for name in meta["classes"]]
        scale, shift = float(meta["scaling_factor"]), float(meta["shift_factor"])
        vae = str(meta["vae"])
        splits = {name: _split(root, shape, len(classes), **meta["splits"][name]) for name in SPLITS}
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{root / META} was not written by {SCRIPT}: {error!r}") from error
    return Prepared(splits, shape, scale, shift, classes, vae)


def _split(root: Path, shape: tuple[int, ...], num_classes: int, labels: str, shards: list[dict[str, Any]]) -> Split:
    files, lengths = [root / shard["file"] for shard in shards], [int(shard["images"]) for shard in shards]
    for file, length in zip(files, lengths, strict=True):
        _opened(file, (length, 2, 2, *shape), DTYPE)
    classes = np.array(_opened(root / labels, (sum(lengths),), np.dtype(np.int64)))
    beyond = classes[(classes < 0) | (classes >= num_classes)]
    problem = f"{root / labels} has classes beyond the {num_classes} of {META}"
    require(not len(beyond), f"{problem}, such as {beyond[:1]}; {AGAIN}")
    return Split(Shards(files, lengths), classes)


def _opened(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    require(path.is_file(), f"{path} is missing; {AGAIN}")
    try:
        array = np.load(path, mmap_mode="r" if shape[0] else None)  # nothing cannot be mapped
    except (EOFError, OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged ({error}); {AGAIN}") from error
    found, expected = (f"{kind} {list(sizes)}" for kind, sizes in ((array.dtype, array.shape), (dtype, shape)))
    require(found == expected, f"{path} holds {found}, and {META} says {expected}; {AGAIN}")
    return array
