"""Image transforms for training and evaluation, and Mixup and CutMix on batches, by timm."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from PIL import Image
from timm.data import Mixup, auto_augment, create_transform
from torch import Tensor
from torch.utils.data import default_collate

Transform = Callable[[Image.Image], Tensor]
Collate = Callable[[list[Any]], Any]

# timm's own defaults are the augmentation of ImageNet.
NO_AUGMENTATION = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0, "color_jitter": 0.0, "re_prob": 0.0}
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
    """Returns the transforms for training and for evaluation, from a PIL image to a normalised tensor (C, H, W).

    Args:
        mean, std: one number, or one for each channel.
        augment: keyword arguments of `timm.data.create_transform`; without one, its augmentation is off.

    Raises:
        ValueError: timm does not take the arguments.
    """
    options = {**NO_AUGMENTATION, **augment}
    options["color_jitter"] = options["color_jitter"] or None  # timm adds a jitter of 0 to the transforms
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
        raise ValueError(f"augment: timm makes no transform of {options}: {error!r}") from error


def collate_with_mixup(mixup: Mapping[str, float], num_classes: int, batch_size: int) -> Collate:
    """Returns a function from samples to a batch, whose targets are class probabilities if Mixup or CutMix is on.

    A batch is mixed in the process that loads it, by the random generators that `ImageSet` has seeded for the batch's
    last sample: it is mixed the same way whenever it is loaded.

    Args:
        mixup: keyword arguments of `timm.data.Mixup`.

    Raises:
        ValueError: an odd batch, whose images cannot be paired.
    """
    options = {**NO_MIXUP, **mixup}
    if options["prob"] == 0 or options["mixup_alpha"] == options["cutmix_alpha"] == 0:
        return default_collate
    if batch_size % 2:
        raise ValueError(f"Mixup and CutMix pair images: expected an even number on a device, not {batch_size}")
    # The loss smooths labels, if asked to.
    return partial(_mixed, Mixup(**options, label_smoothing=0.0, num_classes=num_classes))


def _mixed(mixup: Mixup, samples: list[Any]) -> tuple[Tensor, Tensor]:
    mixed: tuple[Tensor, Tensor] = mixup(*default_collate(samples))
    return mixed


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    return image.point(lambda value: value & ~(2 ** (8 - min(bits, 8)) - 1))


# RandAugment asks timm's own function for 0 bits now and then (rand-m9-mstd0.5-inc1 for one image in 650), which is an
# error since Pillow 13.
for name in ("Posterize", "PosterizeIncreasing", "PosterizeOriginal"):
    auto_augment.NAME_TO_OP[name] = _posterize
