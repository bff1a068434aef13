"""Batches of noise for a DiT, where there need be no data: benchmark.py."""

import torch
from omegaconf import DictConfig
from torch import Tensor

# For other models than the task's own, where no data are named: their sizes, and how many suit a GPU.
# Those of ImageNet at 256 pixels.
SIZES = ["data=latents", "data.img_size=32", "data.in_chans=4", "data.num_classes=1000"]
SAMPLES = 64


def batch(cfg: DictConfig, samples: int) -> tuple[Tensor, Tensor]:
    """Images or latents (B, C, H, W) and their classes (B,)."""
    images = torch.randn(samples, cfg.model.in_chans, cfg.model.img_size, cfg.model.img_size)
    return images, torch.randint(cfg.model.num_classes, (samples,))
