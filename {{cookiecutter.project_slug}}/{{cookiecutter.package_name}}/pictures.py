"""Many small images as one picture that a person reads at a glance, as bytes (C, H, W).

Not torchvision's make_grid: it takes seconds to import, makes grey coloured, and leaves 8 x 8 pixels as small as they
are.
"""

from math import ceil, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 64  # pixels; an image is enlarged to that by a whole number, and never made smaller
GAP, GREY = 4, 190  # between images: pixels, and their level
WIDEST = 20  # classes that have a column each


def columns(number: int, classes: int) -> int:
    """Of a grid of `number` images of `classes` classes in turn. A column is of one class, if they are few.

    It is about as wide as high, or up to twice as wide if its last row is full then.
    """
    step = min(classes, number)
    step = step if step <= WIDEST else 1
    least = step * ceil(sqrt(number) / step)
    return next((width for width in range(least, 2 * least, step) if number % width == 0), least)


def levels(pixels: Tensor) -> Tensor:
    """Pixels in 0..1 -> bytes."""
    return (255 * pixels).round().to(torch.uint8)


def tiled(images: Tensor, columns: int) -> Tensor:
    """Bytes (B, C, H, W) -> one picture of them all (C, H', W'), row by row."""
    times = max(1, TILE // max(images.shape[-2:]))
    images = images.repeat_interleave(times, -2).repeat_interleave(times, -1)
    missing = -len(images) % columns
    images = F.pad(images, (0, GAP, 0, GAP, 0, 0, 0, missing), value=GREY)
    rows = images.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4)  # (C, rows, H, columns, W)
    return rows.flatten(3, 4).flatten(1, 2)[:, :-GAP, :-GAP]
