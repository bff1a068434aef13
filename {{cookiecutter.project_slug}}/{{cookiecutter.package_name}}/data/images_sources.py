"""Where images come from, and how they are divided into train, val and test."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ..errors import UsageError

IMAGE_FILES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
CLASSES = {
    "digits": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
TORCHVISION = {"fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10"}


class Source(Protocol):
    """Images by number, with their classes: targets (N,) int64."""

    targets: np.ndarray

    def __getitem__(self, index: int, /) -> Image.Image: ...


class Split(NamedTuple):
    """The images of `source` that make up train, val or test."""

    source: Source
    indices: np.ndarray


class ArrayImages:
    """Images in memory: pixels (N, H, W) grey or (N, H, W, 3) colour, uint8; targets (N,)."""

    def __init__(self, pixels: np.ndarray, targets: Any) -> None:
        self.pixels, self.targets = pixels, np.asarray(targets, dtype=np.int64)

    def __getitem__(self, index: int, /) -> Image.Image:
        return Image.fromarray(self.pixels[index])


class FolderImages:
    """The image files below folder/<class>/, in an order that depends on their names alone.

    Raises:
        UsageError: a class has no image, or, if it `may_lack_classes`, none has.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], may_lack_classes: bool = False) -> None:
        files = [sorted(_image_files(folder / name)) for name in class_names]
        empty = [name for name, found in zip(class_names, files, strict=True) if not found]
        if empty and not may_lack_classes:
            more = f", as {len(empty) - 1} more class folder(s)" if len(empty) > 1 else ""
            raise UsageError(f"{folder / empty[0]} holds no images{more}; known are {' '.join(IMAGE_FILES)}")
        if len(empty) == len(files):
            raise UsageError(f"{folder} holds no images in class folders: expected {folder}/<class>/*")
        self.prefix = os.path.join(folder, "")
        # One array, because forked workers would copy a list of a million strings, by counting references to them.
        names = [os.fsencode(path.removeprefix(self.prefix)) for found in files for path in found]
        self.names = np.array(names, dtype=bytes)
        self.targets = np.repeat(np.arange(len(files)), [len(found) for found in files])

    def __getitem__(self, index: int, /) -> Image.Image:
        path = self.prefix + os.fsdecode(self.names[index])
        try:
            with Image.open(path) as image:
                image.load()
                return image
        except (OSError, SyntaxError, ValueError) as error:
            raise UsageError(f"{path} cannot be read as an image; replace or remove it") from error


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted; hidden ones are left out."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def folder_classes(name: str, given: str, root: Path, key: str = "data.root") -> list[str]:
    """Class names of an image folder; `given` is the root as the user wrote it, behind `key`.

    Raises:
        UsageError: there is no such folder, or it is not laid out as expected.
    """
    layout = "train/<class>/* and val/<class>/*" if name == "imagenet" else "train/<class>/* or <class>/*"
    if not given:
        raise UsageError(f"{key} is not set: {key}=FOLDER names a folder with {layout}")
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UsageError(f"{key}={given} {problem}: expected a folder with {layout}")
    if name == "imagenet":
        for split in ("train", "val"):
            if not (root / split).is_dir():
                raise UsageError(f"{key}={given} has no {split}/: expected {layout}")
    train = train_folder(root)
    if train == root and any((root / split).is_dir() for split in ("val", "test")) and (root / "train").is_dir():
        raise UsageError(f"{root / 'train'} has no class folders: expected {layout}")
    names = class_folders(train)
    if len(names) < 2:
        what = f"one class folder only ({names[0]})" if names else "no class folders"
        raise UsageError(f"{key}={given} has {what}: expected {layout}")
    return names


def train_folder(root: Path) -> Path:
    """root/train where it has class folders, else `root` itself (where `train` may be the name of a class)."""
    train = root / "train"
    return train if train.is_dir() and class_folders(train) else root


def load(name: str, root: Path, class_names: Sequence[str]) -> dict[str, Source]:
    """The splits that `name` comes with: train (or all there is), and val and test where someone made them.

    Raises:
        UsageError: files are missing, damaged, or not of these classes.
    """
    if name == "digits":
        return {"train": digits()}
    if name in TORCHVISION:
        return {"train": torchvision_set(name, root, train=True), "test": torchvision_set(name, root, train=False)}
    train = train_folder(root)
    sources: dict[str, Source] = {"train": FolderImages(train, class_names)}
    for split in ("val", "test"):
        folder = root / split
        if train == root or not folder.is_dir():
            continue
        if unknown := sorted(set(class_folders(folder)) - set(class_names)):
            raise UsageError(f"{folder} has the class folder {unknown[0]!r}, which {train} has not")
        sources[split] = FolderImages(folder, class_names, may_lack_classes=True)
    if name == "imagenet":
        # The labels of the official test set are not public: papers report accuracy on the official validation set.
        sources["test"] = sources["val"]
    return sources


def digits() -> ArrayImages:
    """scikit-learn's handwritten digits: 1797 images of 8 x 8 pixels, whose 17 grey levels are spread over 0..255."""
    from sklearn.datasets import load_digits

    levels, targets = load_digits(return_X_y=True)
    return ArrayImages(np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8), targets)


def torchvision_set(name: str, root: Path, train: bool) -> ArrayImages:
    """The official training or test set of one of the data sets in `TORCHVISION`."""
    from torchvision import datasets

    try:
        dataset = getattr(datasets, TORCHVISION[name])(root, train=train)
    except (AssertionError, RuntimeError, ValueError) as error:
        problem = f"data.root={root} does not hold {name}, or a damaged copy"
        raise UsageError(f"{problem}; add data.download=true") from error
    return ArrayImages(np.asarray(dataset.data), dataset.targets)


def download(name: str, root: Path) -> None:
    """Fetches what is missing, in one process while others wait; files that are there with the right checksum stay."""
    from filelock import FileLock
    from torchvision import datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock"):
            getattr(datasets, TORCHVISION[name])(root, download=True)
    except (OSError, RuntimeError) as error:
        cause = " ".join(str(error).split())
        raise UsageError(f"data.root={root}: {name} could not be downloaded: {cause}") from error


def divide(sources: Mapping[str, Source], fractions: Mapping[str, float], seed: int) -> dict[str, Split]:
    """train, val and test. Of the images of train, this fraction goes to a split that is not there yet, stratified."""
    splits = {name: Split(source, np.arange(len(source.targets))) for name, source in sources.items()}
    source, everything = splits["train"]
    missing = [name for name in fractions if name not in splits]
    sizes = [max(1, round(fractions[name] * len(everything))) if fractions[name] else 0 for name in missing]
    *parts, rest = stratified_split(source.targets, sizes, seed)
    parts_by_name = {name: Split(source, part) for name, part in zip(missing, parts, strict=True)}
    return {**splits, **parts_by_name, "train": Split(source, rest)}


def stratified_split(targets: np.ndarray, sizes: Sequence[int], seed: int) -> list[np.ndarray]:
    """Disjoint sorted index arrays of these sizes, then the rest; each has its share of every class, up to a sample."""
    random = np.random.RandomState(seed)  # frozen for ever, unlike default_rng
    left = random.permutation(len(targets))
    left = left[np.argsort(targets[left], kind="stable")]  # by class, in random order within a class
    parts = []
    for size in sizes:
        evenly_spaced = ((np.arange(size) + 0.5) * (len(left) / max(1, size))).astype(int)
        parts.append(np.sort(left[evenly_spaced]))
        left = np.delete(left, evenly_spaced)
    return [*parts, np.sort(left)]


def _image_files(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if name.lower().endswith(IMAGE_FILES) and not name.startswith("."):
                yield os.path.join(parent, name)
