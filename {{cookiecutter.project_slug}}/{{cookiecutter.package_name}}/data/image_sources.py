"""Sources of labelled images: folders, tar files, torchvision and Hugging Face through timm; scikit-learn's digits."""

import os
import re
import tarfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image, ImageColor, ImageOps
from timm.data import create_dataset
from timm.data.readers import add_img_extensions
from torch.utils.data import Dataset

from ..config.errors import UsageError, first_line

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's, by number of channels
LAYOUT = "expected train/<class>/*, with val/ and test/ alike, or <class>/*"
# Names of splits in lower case, as timm, the Hugging Face hub and archives in use have them.
SPLITS = {
    "train": ("train", "training", "seg_train"),
    "val": ("val", "valid", "validation", "eval", "evaluation", "seg_val"),
    "test": ("test", "testing", "seg_test"),
}
STREAMS = ("wds", "hfids", "tfds")
HIDDEN = re.compile(r"(^|[\\/])(\.[^\\/.]|__MACOSX[\\/])")  # files and folders that no one calls images of the set
STUBS = ("BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "PDF", "WMF")  # Pillow needs other programs for these
UNREADABLE = (OSError, SyntaxError, ValueError, tarfile.TarError, Image.DecompressionBombError)  # by damaged files
LONGEST = 100  # times the width: a strip would be resized to gigabytes

Image.init()
add_img_extensions([end for end, kind in Image.EXTENSION.items() if kind in Image.OPEN and kind not in STUBS])


@dataclass(frozen=True)
class Source:
    """Labelled images with random access.

    Args:
        dataset: a data set of timm or torchvision.
        targets: classes (N,), int64.
        class_names: of the classes 0, 1, ...
        background: colour behind transparent pixels.
        passed_over: number of the folder's files that are none of these; of a tar file, of the hidden images.
    """

    dataset: Any
    targets: np.ndarray
    class_names: list[str]
    background: str = "white"
    passed_over: int = 0

    def image(self, index: int, mode: str) -> Image.Image:
        """Returns an image in one of MODES.

        Raises:
            UsageError: its file cannot be read; also in the middle of a training, and from a worker process.
        """
        try:
            if not hasattr(self.dataset, "reader"):
                return convert(self.dataset[index][0], mode, self.background)
            # Not by timm's own __getitem__, which takes the next image where one cannot be read.
            with self.dataset.reader[index][0] as file, Image.open(file) as image:
                return convert(image, mode, self.background)
        except UNREADABLE as error:
            raise UsageError(
                f"{self.filename(index)}: cannot be read as an image ({first_line(error)}); replace or remove it"
            ) from error

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
        return replace(self, targets=numbers[self.targets], class_names=class_names)


def convert(image: Image.Image, mode: str, background: str = "white") -> Image.Image:
    """Returns an image as a person sees it, in one of MODES.

    It is turned as its EXIF data say. 16 bits are scaled to 8, and floats from 0..1. Transparent pixels get the
    background.

    Raises:
        ValueError: the image is a strip, or its values are beyond these ranges.
    """
    if max(image.size) > LONGEST * min(image.size):
        raise ValueError(f"{image.width}x{image.height} pixels: more than {LONGEST} times longer than wide")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        values, top = np.asarray(image, dtype=np.float64), 1 if image.mode == "F" else 65535
        if not (values.min() >= 0 and values.max() <= top):
            raise ValueError(f"values from {values.min():g} to {values.max():g}: expected 0 to {top}")
        image = Image.fromarray(np.round(values * (255 / top)).astype(np.uint8))
    if image.has_transparency_data and mode != "RGBA":
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert(mode)


class Digits(Dataset[tuple[Image.Image, int]]):
    """scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, whose 17 grey levels are spread over 0..255."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        levels, self.targets = load_digits(return_X_y=True)
        self.data = np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.data[index]), int(self.targets[index])


def load(
    name: str,
    root: str = "",
    download: bool = False,
    input_key: str = "image",
    target_key: str = "label",
    background: str = "white",
) -> dict[str, Source]:
    """Returns the splits that a data set comes with: train (or all there is), and val and test where there are such.

    A test split without labels is left out.

    Args:
        name: of `timm.data.create_dataset` (torch/..., hfds/..., or folder for folders and tar files), or digits.
        root: folder of the data, or a tar file; for hfds/... a cache, empty for the library's own.
        download: fetches what torch/... lacks in `root`.
        input_key, target_key: columns of hfds/... that hold images and classes.
        background: colour behind transparent pixels, as Pillow names it.

    Raises:
        FileNotFoundError, ValueError: the data are missing or damaged, or not images of two classes or more.
    """
    ImageColor.getrgb(background)  # or a ValueError that says what it is
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
        sources[split] = replace(source.with_classes(sources["train"].class_names), background=background)
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
    parts = {part.name.lower().removesuffix(".tar"): part for part in sorted(path.iterdir())} if path.is_dir() else {}
    splits = {}
    for split, names in SPLITS.items():
        if found := [parts[name] for name in names if name in parts]:
            splits[split] = found[0]
    train = splits.get("train")
    if train is None or (len(splits) == 1 and train.is_dir() and not any(part.is_dir() for part in train.iterdir())):
        return {"train": path}  # train may be the name of a class
    return splits


def _folder(path: Path) -> Source:
    """Returns the images below a folder, or in a tar file; the class of an image is the name of its folder."""
    # A tar file is opened for every image, since processes that share an open file would move each other's position.
    tar: dict[str, Any] = {"cache_tarfiles": False} if path.suffix == ".tar" else {}
    dataset: Any = create_dataset("", str(path), search_split=False, **tar)
    reader = dataset.reader
    if tar:
        files, found = [sample[0].path for sample in reader.samples], reader.targets
        classes, start = list(reader.class_name_to_idx), 0
    else:
        files, found = map(list, zip(*reader.samples, strict=True))
        classes, start = list(reader.class_to_idx), len(str(path))
    kept = [index for index, file in enumerate(files) if not HIDDEN.search(file, start)]
    if not kept:
        raise ValueError(f"{path} has no images that are not hidden: {LAYOUT}")
    total = len(files) if tar else sum(len(names) for *_, names in os.walk(path, followlinks=True))
    reader.samples = [reader.samples[index] for index in kept]
    numbers, targets = np.unique(np.asarray(found)[kept], return_inverse=True)
    return Source(dataset, targets, [classes[number] for number in numbers], passed_over=total - len(kept))


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
