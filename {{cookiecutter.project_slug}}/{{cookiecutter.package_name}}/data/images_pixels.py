"""From what a net works on back to images; apart from the data module, so that a sample need not wait for Lightning."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def pixels(section: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """From images as they are normalised (B, C, H, W) to pixels (B, C, H, W) in 0..1 on the CPU, fp32.

    Args:
        section: `data` of a config.
    """
    mean, std = (torch.tensor(list(section[key]), dtype=torch.float32)[:, None, None] for key in ("mean", "std"))
    return lambda images: (images.detach().float().cpu() * std + mean).clamp(0, 1)


def shows_pixels(section: Mapping[str, Any]) -> bool:
    """Whether `pixels` gives images; other kinds of data may have something else to look at."""
    return True


def identity(section: Mapping[str, Any]) -> str:
    """Changes with what `pixels` gives of these data: here with nothing but their section of the config."""
    return ""
