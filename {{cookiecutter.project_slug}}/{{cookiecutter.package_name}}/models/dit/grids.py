"""Grids of images, and PNG files."""

from math import ceil, sqrt
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from ...utils import levels, replace

TILE = 64  # pixels; a smaller image is enlarged to that by a whole number
GAP, GREY = 4, 190  # around images: pixels, and their level
MAX_COLUMNS = 20  # a grid of more classes has no column for each


def columns(number: int, classes: int) -> int:
    """Returns the columns of a grid, about as wide as high, of `number` images whose classes take turns.

    Each column has one class, unless there are many classes.
    """
    step = min(classes, number) if classes <= MAX_COLUMNS else 1
    return step * ceil(sqrt(number) / step)


def image_grid(images: Tensor, columns: int) -> Tensor:
    """Returns one picture, bytes (3, H', W'), of images (B, 1 or 3, H, W) with values in 0..1, row by row."""
    scale = max(1, TILE // max(images.shape[-2:]))
    images = levels(images).repeat_interleave(scale, -2).repeat_interleave(scale, -1)
    return make_grid(images, columns, GAP, pad_value=GREY)


def write_png(path: Path, picture: Tensor) -> None:
    """Writes bytes (C, H, W): grey, or red, green and blue."""
    image = Image.fromarray(picture.movedim(0, -1).squeeze(-1).numpy())
    replace(path, lambda file: image.save(file, "PNG"))
