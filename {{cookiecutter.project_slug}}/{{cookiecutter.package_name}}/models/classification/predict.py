"""Classes of images by a trained classifier: the options and the function of `python predict.py`."""

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from PIL import Image
from timm.data.readers.reader_image_folder import find_images_and_targets
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ...cli import progress
from ...config import plain, recompose
from ...config.constraints import COUNT, check_constraints, one_of
from ...config.errors import first_line, require
from ...data.image_sources import HIDDEN, MODES, UNREADABLE, convert
from ...data.transforms import Transform, image_transforms
from ...utils import cpu_count, leave_signals, replace
from .. import get_family
from ..trained import class_names, find_device, set_precision, trained_model

OPTIONS = {
    "images": ("", "an image, or a folder: the images in it and in its subfolders, without hidden ones"),
    "out": ("", "a .csv or .jsonl file, replaced if it exists, once all images are done; empty: stdout"),
    "format": ("", "csv | jsonl (a JSON object per line); empty: as out's suffix says, and csv on stdout"),
    "top": (5, "classes per image, the most probable first"),
    "batch_size": (64, "images at once"),
    "device": ("auto", "auto | cpu | cuda | cuda:1 | mps"),
}
PREPROCESSING = ("img_size", "in_chans", "mean", "std", "interpolation", "crop_pct")  # keys of section `data`

Sample = Tensor | str  # an image (C, H, W), or why there is none


def predict(
    checkpoint: Path,
    config: Mapping[str, Any],
    images: str,
    out: str,
    format: str,
    top: int,
    batch_size: int,
    device: str,
) -> None:
    """Writes path, classes and probabilities of every image; stderr gets the files that cannot be read, and a count.

    Raises:
        UsageError: an option out of range, no images, or none that can be read.
    """
    limits = {"format": one_of("", "csv", "jsonl"), "top": COUNT, "batch_size": COUNT}
    check_constraints({"format": format, "top": top, "batch_size": batch_size}, limits)
    file = Path(out).expanduser()
    if out:
        require(file.suffix in (".csv", ".jsonl"), f"out={out}: expected a .csv or .jsonl file")
        require(
            format in ("", file.suffix[1:]), f"format={format}: the suffix of out={out} says another; leave one out"
        )
        require(file.parent.is_dir() and not file.is_dir(), f"out={out}: expected a file in a folder that exists")
        format = file.suffix[1:]
    paths = find_images(images)
    cfg = recompose(config, [], anew=(), free=())
    data = plain(cfg.data)
    require(
        data.keys() >= set(PREPROCESSING), f"{checkpoint}: it was trained on data={cfg.defaults.data}, not on images"
    )
    _, transform = image_transforms(**{key: data[key] for key in PREPROCESSING}, augment={})
    samples = ImageFiles(paths, MODES[data["in_chans"]], data.get("background", "white"), transform)
    workers = min(data["workers"], cpu_count(), (len(paths) - 1) // batch_size)
    loader = DataLoader(samples, batch_size, num_workers=workers, collate_fn=_collate, worker_init_fn=leave_signals)
    names = class_names(checkpoint, cfg.model.num_classes)
    model = trained_model(get_family(cfg.task.name).build_model, cfg, checkpoint).to(find_device(device))

    def write(stream: TextIO) -> None:
        done, bar = 0, progress("images")
        bar.disable = stream.isatty()  # whose lines show how far it is
        with bar:
            task = bar.add_task("", total=len(paths))
            for path, found in zip(paths, probabilities(model, loader, cfg.trainer.precision), strict=True):
                name = os.fsencode(path).decode(errors="backslashreplace")
                if isinstance(found, str):
                    print(f"skipped: {name}: {found}", file=sys.stderr)
                else:
                    values, numbers = found.topk(min(top, len(names)))
                    classes = [names[number] for number in numbers]
                    _write_row(stream, format, name, classes, [round(value, 6) for value in values.tolist()], done == 0)
                    done += 1
                bar.advance(task)
        require(done > 0, f"images={images}: none of {len(paths)} file(s) can be read as an image")
        print(f"{done} of {len(paths)} image(s) predicted, {len(paths) - done} skipped", file=sys.stderr)

    def write_file(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as stream:
            write(stream)

    if out:
        replace(file, write_file)
    else:
        write(sys.stdout)


def find_images(images: str) -> list[Path]:
    """Returns the file, or the image files below the folder, in natural order.

    Raises:
        UsageError: there are none.
    """
    path = Path(images).expanduser()
    require(bool(images) and path.exists(), f"images={images}: expected an image, or a folder of images")
    if not path.is_dir():
        return [path]
    files = [file for file, _ in find_images_and_targets(str(path))[0] if not HIDDEN.search(file, len(str(path)))]
    require(bool(files), f"images={images}: there are no images in this folder that are not hidden")
    return [Path(file) for file in files]


@dataclass(frozen=True)
class ImageFiles(Dataset[Sample]):
    """Files as normalised images (C, H, W); in the place of one that cannot be read is the reason."""

    paths: Sequence[Path]
    mode: str
    background: str
    transform: Transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        try:
            with Image.open(self.paths[index]) as image:
                return self.transform(convert(image, self.mode, self.background))
        except UNREADABLE as error:
            return first_line(error)


@torch.inference_mode()
def probabilities(model: nn.Module, loader: DataLoader[Sample], precision: str | int | None) -> Iterator[Sample]:
    """Yields for every file the probabilities (K,) of the classes, fp32 on the CPU, or why there are none."""
    dtype = set_precision(model, precision)
    parameter = next(model.parameters())
    context = nullcontext() if dtype is None else torch.autocast(parameter.device.type, dtype)
    for images, reasons in loader:
        found: Iterator[Tensor] = iter(())
        if images is not None:
            with context:
                found = iter(model(images.to(parameter)).float().softmax(-1).cpu())
        yield from (next(found) if reason is None else reason for reason in reasons)


def _collate(samples: list[Sample]) -> tuple[Tensor | None, list[str | None]]:
    """Returns the images (B, C, H, W) that could be read, if any, and for every sample None or the reason."""
    images = [sample for sample in samples if isinstance(sample, Tensor)]
    return torch.stack(images) if images else None, [one if isinstance(one, str) else None for one in samples]


def _write_row(stream: TextIO, format: str, path: str, classes: list[str], values: list[float], first: bool) -> None:
    """Writes the line of an image; `first` puts the header of a CSV before it."""
    if format == "jsonl":
        print(json.dumps({"path": path, "classes": classes, "probabilities": values}), file=stream)
        return
    table = csv.writer(stream, lineterminator="\n")
    if first:
        table.writerow(["path", *(f"{part}_{n + 1}" for n in range(len(classes)) for part in ("class", "probability"))])
    table.writerow([path, *(cell for pair in zip(classes, values, strict=True) for cell in pair)])
