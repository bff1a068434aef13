"""Common corruptions of images, for `evaluate.py shift=corruptions`.

Kinds and strengths are those of ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261, and its code) for photos of
224 pixels a side, applied to the pixels in 0..1 that validation sees, before they are normalised. Noise, contrast and
brightness are taken unchanged. Blur and pixelate are lengths: the same number of pixels destroys a small image, and the
same share of its side is less than one of its pixels. So they are scaled on the logarithm of the side: what leaves m of
224 pixels leaves n ** (log m / log 224) of n.
"""

from collections.abc import Mapping
from functools import lru_cache, partial
from math import ceil, log, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from ... import utils
from ...utils import levels, mix

if TYPE_CHECKING:  # Lightning's import takes seconds, for which a mistyped name should not wait
    from ...data.images import Images, ImageSet

NAME, ABOUT = "corruptions", "images with noise, blur, other contrast and brightness, fewer pixels"
SIDE = 224  # pixels of the images that the strengths were made for
STRENGTHS = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation
    "shot_noise": (60, 25, 12, 5, 3),  # photons of a white pixel, Poisson distributed
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),  # share of the values that become 0 or 1
    "gaussian_blur": (1, 2, 3, 4, 6),  # standard deviation, in pixels of 224
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor of every difference to the channel's mean
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the largest channel; hue and saturation stay
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # share of 224 pixels that is left
}
KINDS = tuple(STRENGTHS)


def shifted(data: "Images", section: Mapping[str, Any], kind: str, strength: int) -> "Images":
    """Returns the data with corrupted images in validation and test; at strength 0 unchanged. `section` is `data`'s."""
    if strength == 0:
        return data
    return data.damaged(partial(CorruptedSet, kind=kind, strength=strength, mean=section["mean"], std=section["std"]))


class CorruptedSet(Dataset[tuple[Tensor, int]]):
    """Normalised images, corrupted. The noise depends on kind and index alone, and grows with the strength."""

    def __init__(self, images: "ImageSet", kind: str, strength: int, mean: list[float], std: list[float]) -> None:
        self.images, self.kind, self.strength = images, kind, strength
        self.mean, self.std = (torch.tensor(list(numbers))[:, None, None] for numbers in (mean, std))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int] | int) -> tuple[Tensor, int]:
        image, target = self.images[key]
        index = key[1] if isinstance(key, tuple) else key
        random = Generator().manual_seed(mix(index, KINDS.index(self.kind)))
        pixels = (image * self.std + self.mean).clamp(0, 1)
        return (corrupted(pixels, self.kind, self.strength, random) - self.mean) / self.std, target


def corrupted(pixels: Tensor, kind: str, strength: int, random: Generator) -> Tensor:
    """Returns an image (C, H, W) in 0..1 corrupted by `kind` at `strength`, 1 to 5, again in 0..1."""
    amount, side = STRENGTHS[kind][strength - 1], pixels.shape[-1]
    match kind:
        case "gaussian_noise":
            pixels = pixels + amount * torch.randn(pixels.shape, generator=random)
        case "shot_noise":
            pixels = torch.poisson(pixels * amount, generator=random) / amount
        case "impulse_noise":
            draw = torch.rand(pixels.shape, generator=random)
            pixels = pixels.masked_fill(draw < amount / 2, 0.0).masked_fill(draw > 1 - amount / 2, 1.0)
        case "gaussian_blur":
            pixels = blurred(pixels, blur_of(amount, side))
        case "contrast":
            pixels = pixels.mean((-2, -1), keepdim=True).lerp(pixels, amount)
        case "brightness":
            pixels = brightened(pixels, amount)
        case "pixelate":
            pixels = pixelated(pixels, int(side * share_of(amount, side)))
    return pixels.clamp(0, 1)


def share_of(share: float, side: int) -> float:
    """Returns the share of `side` pixels that corresponds to `share` of 224."""
    return float(share ** (log(side) / log(SIDE)))


def blur_of(sigma: float, side: int) -> float:
    """Returns the standard deviation for `side` pixels that corresponds to `sigma` for 224.

    A blur acts as pixels of sqrt(1 + 12 sigma^2) times the side, which have the same variance.
    """
    wide = 1 / share_of(1 / sqrt(1 + 12 * sigma**2), side)
    return sqrt(max(0.0, wide**2 - 1) / 12)


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Returns the image under a Gaussian blur, mirrored once at its borders."""
    from torchvision.transforms.v2.functional import gaussian_blur

    radius = min(ceil(4 * sigma), pixels.shape[-1] - 1)
    return gaussian_blur(pixels, [2 * radius + 1] * 2, [sigma] * 2) if radius else pixels


def brightened(pixels: Tensor, amount: float) -> Tensor:
    """Adds `amount` to the value of HSV, up to 1: all channels grow by one factor, and black becomes grey."""
    value = pixels.amax(0, keepdim=True)
    brighter = (value + amount).clamp(max=1)
    return torch.where(value > 0, pixels * (brighter / value.clamp(min=1e-12)), brighter)


def pixelated(pixels: Tensor, side: int) -> Tensor:
    """Returns the means over `side` boxes a side, at the image's own size; a pixel between two boxes counts for both.

    Pillow, in the benchmark's code, counts it for one of them: 5 boxes of 8 pixels may then corrupt less than 6.
    """
    rows, columns = (_boxes(number, side) for number in pixels.shape[-2:])
    return rows @ pixels @ columns.T


@lru_cache
def _boxes(number: int, side: int) -> Tensor:
    """Returns the matrix (number, number) from pixels to the means over `side` boxes, and back to as many pixels."""
    parts = torch.eye(number).repeat_interleave(side, 1)  # every pixel in as many parts as there are boxes
    shares = parts.unflatten(1, (side, number)).mean(-1)  # (number, side): of each pixel in a box's mean
    return (shares * number / side) @ shares.T


def write_samples(data: "Images", section: Mapping[str, Any], split: str, stem: Path) -> Path:
    """Draws the split's first image unchanged and under every kind and strength; returns the path, `stem`.png."""
    from matplotlib.figure import Figure

    from ...data.images import pixels

    images = data.dataset(split)
    figure = Figure(figsize=(7, 1.1 * len(KINDS)), dpi=120, layout="constrained")
    for row, kind in zip(figure.subplots(len(KINDS), 6, squeeze=False), KINDS, strict=True):
        sets = [CorruptedSet(images, kind, strength, section["mean"], section["std"]) for strength in range(1, 6)]
        for strength, (axes, one) in enumerate(zip(row, (images, *sets), strict=True)):
            image = levels(pixels(section)(one[0][0])).movedim(0, -1).squeeze(-1)
            axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{kind.replace('_', ' ')} {strength}" if strength else "unchanged", fontsize=7)
    path = stem.with_suffix(".png")
    utils.replace(path, lambda file: figure.savefig(file, format="png"))
    return path
