"""What happens to an image before the net sees it: timm's transforms, Mixup and CutMix, from checked values."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import default_collate

from ..errors import UsageError, require

Transform = Callable[[Image.Image], Tensor]

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
# What is not asked for is off; timm's own defaults are those of ImageNet.
NO_AUGMENTATION = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0, "color_jitter": 0.0, "re_prob": 0.0}
ERASURES = ("const", "rand", "pixel")
NO_MIXUP = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "prob": 1.0, "switch_prob": 0.5}


def image_transforms(
    img_size: int,
    in_chans: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str,
    crop_pct: float,
    augment: Mapping[str, Any],
) -> tuple[Transform, Transform]:
    """For training and for evaluation: PIL image -> (C, H, W), normalised. RandAugment works on grey images too.

    Args:
        augment: keywords of `timm.data.create_transform`.
    """
    from timm.data import create_transform

    for key, numbers in {"mean": mean, "std": std}.items():
        fits = _are_numbers(numbers) and len(numbers) in (1, in_chans)
        require(fits, f"data.{key}={numbers}: expected {in_chans} number(s), as data.in_chans says")
    require(min(std) > 0, f"data.std={list(std)}: expected numbers above 0")
    known = interpolation in INTERPOLATIONS
    require(known, f"data.interpolation={interpolation}: choose from {', '.join(INTERPOLATIONS)}")
    require(0 < crop_pct <= 1, f"data.crop_pct={crop_pct}: expected more than 0, and at most 1")
    options = {**NO_AUGMENTATION, **augment}
    for key in ("scale", "ratio"):
        low, high = options[key] if _are_numbers(options[key]) and len(options[key]) == 2 else (0, 0)
        require(0 < low <= high, f"data.augment.{key}={options[key]}: expected [smallest, largest], above 0")
    for key in ("hflip", "re_prob"):
        chance = options[key]
        possible = _are_numbers([chance]) and 0 <= chance <= 1
        require(possible, f"data.augment.{key}={chance}: expected a probability, 0 to 1")
    erasure, jitter, policy = options.get("re_mode", ERASURES[0]), options["color_jitter"], options.get("auto_augment")
    require(erasure in ERASURES, f"data.augment.re_mode={erasure}: choose from {', '.join(ERASURES)}")
    positive = _are_numbers([jitter]) and jitter >= 0
    require(positive, f"data.augment.color_jitter={jitter}: expected a strength, 0 or more")
    require(isinstance(policy or "", str), f"data.augment.auto_augment={policy}: expected the name of a policy, or ''")
    options["color_jitter"] = jitter or None  # timm runs a jitter of 0 all the same
    if policy:
        _replace_posterize()
    create = partial(
        create_transform,
        img_size,
        interpolation=interpolation,
        mean=tuple(mean) * (in_chans // len(mean)),
        std=tuple(std) * (in_chans // len(std)),
    )
    try:
        return create(is_training=True, **options), create(crop_pct=crop_pct)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UsageError(f"data.augment: timm cannot make a transform of it ({cause})") from error


def mixing_collate(mixup: Mapping[str, float], num_classes: int, batch_size: int) -> Callable[[list[Any]], Any]:
    """How samples become a batch; with Mixup or CutMix on, it is mixed there, and its targets are class probabilities.

    Args:
        mixup: keywords of `timm.data.Mixup`.
    """
    options = {**NO_MIXUP, **mixup}
    for key, value in options.items():
        require(_are_numbers([value]) and value >= 0, f"data.mixup.{key}={value}: expected 0 or more")
    for key in ("prob", "switch_prob"):
        require(options[key] <= 1, f"data.mixup.{key}={options[key]}: expected a probability, 0 to 1")
    if options["prob"] == 0 or options["mixup_alpha"] == options["cutmix_alpha"] == 0:
        return default_collate
    from timm.data import Mixup

    require(
        batch_size % 2 == 0, f"data.batch_size={batch_size}: Mixup and CutMix pair images, so expected an even number"
    )
    return MixingCollate(Mixup(**options, label_smoothing=0.0, num_classes=num_classes))  # the task smooths


class MixingCollate:
    """Stacks samples and mixes them, in the process that loaded them.

    The generators go on from the seed of the batch's last sample: a batch is mixed the same way whenever it is loaded.
    """

    def __init__(self, mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        self.mix = mix

    def __call__(self, samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        images, targets = default_collate(samples)
        return self.mix(images, targets)


def _are_numbers(values: Any) -> bool:
    numbers = isinstance(values, Sequence) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )
    return numbers and all(math.isfinite(value) for value in values)


@cache
def _replace_posterize() -> None:
    from timm.data import auto_augment

    for name in ("Posterize", "PosterizeIncreasing", "PosterizeOriginal"):
        auto_augment.NAME_TO_OP[name] = _posterize


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's operation, black for 0 bits: rand-m9-mstd0.5-inc1 asks for that once in 650 images, Pillow 13 refuses."""
    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits > 0 else image.point(lambda _: 0)
