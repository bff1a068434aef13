"""Labelled images: from folders, tar files, torchvision and Hugging Face through timm, and scikit-learn's digits."""

import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from timm.data import create_dataset
from timm.data.readers import add_img_extensions
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ..config.errors import UsageError, first_line
from ..utils import seed_all
from .base import DataModule
from .transforms import Collate, Transform, collate_with_mixup, image_transforms

MODES = {1: "L", 3: "RGB"}  # Pillow's, by number of channels
LAYOUT = "expected train/<class>/*, with val/ and test/ alike, or <class>/*"
# Names of splits, as timm and the Hugging Face hub know them.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval", "evaluation"),
    "test": ("test", "testing"),
}
STREAMS = ("wds", "hfids", "tfds")

add_img_extensions((".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp"))  # timm itself looks for png and jpg


@dataclass(frozen=True)
class Source:
    """Labelled images with random access.

    Args:
        dataset: a data set of timm or torchvision.
        targets: classes (N,), int64.
        class_names: of the classes 0, 1, ...
    """

    dataset: Any
    targets: np.ndarray
    class_names: list[str]

    def image(self, index: int, mode: str) -> Image.Image:
        """Returns an image in one of Pillow's modes.

        Raises:
            UsageError: its file cannot be read; also in the middle of a training, and from a worker process.
        """
        try:
            if not hasattr(self.dataset, "reader"):
                return self.dataset[index][0].convert(mode)
            # Not by timm's own __getitem__, which takes the next image where one cannot be read.
            with self.dataset.reader[index][0] as file, Image.open(file) as image:
                return image.convert(mode)
        except (OSError, SyntaxError, ValueError, tarfile.TarError) as error:
            raise UsageError(f"{self.filename(index)} cannot be read as an image; replace or remove it") from error

    def filename(self, index: int) -> str:
        """Returns the path of an image, or its number if it has none."""
        path = self.dataset.filename(index, absolute=True) if hasattr(self.dataset, "filename") else None
        return path or f"image {index}"

    def with_classes(self, class_names: list[str]) -> "Source":
        """Returns the same images with their classes numbered by `class_names`.

        Raises:
            ValueError: a class is not among them.
        """
        if self.class_names == class_names:
            return self
        if unknown := sorted(set(self.class_names) - set(class_names)):
            raise ValueError(f"{self.filename(0)}: class {unknown[0]!r} of its split is not one of train's")
        numbers = np.array([class_names.index(name) for name in self.class_names])
        return Source(self.dataset, numbers[self.targets], class_names)


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
        sources = load(dataset, root, download, input_key, target_key)
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


class Digits(Dataset[tuple[Image.Image, int]]):
    """scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, whose 17 grey levels are spread over 0..255."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        levels, self.targets = load_digits(return_X_y=True)
        self.data = np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.data[index]), int(self.targets[index])


def load(
    name: str, root: str = "", download: bool = False, input_key: str = "image", target_key: str = "label"
) -> dict[str, Source]:
    """Returns the splits that a data set comes with: train (or all there is), and val and test where there are such.

    A test split without labels is left out.

    Args:
        name: of `timm.data.create_dataset` (torch/..., hfds/..., or folder for folders and tar files), or digits.
        root: folder of the data, or a tar file; for hfds/... a cache, empty for the library's own.
        download: fetches what torch/... lacks in `root`.
        input_key, target_key: columns of hfds/... that hold images and classes.

    Raises:
        FileNotFoundError, ValueError: the data are missing or damaged, or not images of two classes or more.
    """
    prefix, path = name.partition("/")[0], Path(root).expanduser()
    if prefix in STREAMS:
        other = "; hfds/<folder of its tar files> has random access" if prefix == "wds" else ""
        raise ValueError(f"{name} is a stream: it cannot be shuffled by a seed, or resumed at an image{other}")
    try:
        if name == "digits":
            digits = Digits()
            sources = {"train": Source(digits, digits.targets, list("0123456789"))}
        elif prefix == "torch":
            sources = _torchvision(name, path, download)
        elif prefix == "hfds":
            sources = _hugging_face(name, str(path) if root else None, input_key, target_key)
        else:
            sources = {split: _folder(part) for split, part in folder_splits(root).items()}
    except (AssertionError, AttributeError, ImportError, KeyError, RuntimeError, tarfile.TarError) as error:
        raise ValueError(f"{name} {root}: {first_line(error)}") from error
    if "test" in sources and (sources["test"].class_names == [""] or sources["test"].targets.min() < 0):
        del sources["test"]
    for split, source in sources.items():
        if "" in source.class_names:
            raise ValueError(f"{root}: the images of {split} are not in class folders: {LAYOUT}")
        sources[split] = source.with_classes(sources["train"].class_names)
    if len(sources["train"].class_names) < 2:
        raise ValueError(f"{name} {root} has the class {sources['train'].class_names[0]} only: expected two or more")
    return sources


def folder_splits(root: str) -> dict[str, Path]:
    """Returns the folder, or tar file, of each split in `root`; of train alone if `root` is not divided.

    Raises:
        FileNotFoundError, ValueError: there are no such files.
    """
    path = Path(root).expanduser()
    if not root or not path.exists():
        raise FileNotFoundError(f"{root} does not exist: {LAYOUT}" if root else f"root is not set: {LAYOUT}")
    if path.is_file() and path.suffix != ".tar":
        raise ValueError(f"{root} is not a folder or a tar file: {LAYOUT}")
    splits = {}
    for split, names in SPLITS.items():
        found = [part for name in names for part in (path / name, path / f"{name}.tar") if part.exists()]
        if found:
            splits[split] = found[0]
    train = splits.get("train")
    if train is None or (len(splits) == 1 and train.is_dir() and not any(part.is_dir() for part in train.iterdir())):
        return {"train": path}  # train may be the name of a class
    return splits


def _folder(path: Path) -> Source:
    """Returns the images below a folder, or in a tar file; the class of an image is the name of its folder."""
    if path.suffix != ".tar":
        dataset = create_dataset("", str(path), search_split=False)
        classes, targets = dataset.reader.class_to_idx, [target for _, target in dataset.reader.samples]
    else:  # opened for every image, because processes that share an open file would move each other's position in it
        dataset = create_dataset("", str(path), search_split=False, cache_tarfiles=False)
        classes, targets = dataset.reader.class_name_to_idx, dataset.reader.targets
    return Source(dataset, np.asarray(targets), list(classes))


def _torchvision(name: str, root: Path, download: bool) -> dict[str, Source]:
    held_out = "val" if name in ("torch/imagenet", "torch/places365") else "test"
    if download:
        root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock") if download else nullcontext():  # one process fetches, the others wait
        datasets = {split: create_dataset(name, str(root), split, download=download) for split in ("train", held_out)}
    names = [one if isinstance(one, str) else ", ".join(one) for one in datasets["train"].classes]
    return {split: Source(dataset, np.asarray(dataset.targets), names) for split, dataset in datasets.items()}


def _hugging_face(name: str, cache: str | None, input_key: str, target_key: str) -> dict[str, Source]:
    from datasets import get_dataset_split_names

    sources = {}
    for split in get_dataset_split_names(name.partition("/")[2]):
        for ours, names in SPLITS.items():
            if split in names:
                dataset = create_dataset(name, cache, split, input_key=input_key, target_key=target_key)
                classes, targets = dataset.reader.class_to_idx, dataset.reader.dataset[target_key][:]
                if not classes:  # plain numbers or words
                    classes, targets = np.unique(targets, return_inverse=True)
                sources[ours] = Source(dataset, np.asarray(targets), list(map(str, classes)))
    if "train" not in sources:
        raise ValueError(f"{name} has no split train")
    return sources


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
