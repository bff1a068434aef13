"""Batches of noise for a ViT, where there need be no data: benchmark.py."""

import torch
from omegaconf import DictConfig
from torch import Tensor

# For other models than the task's own, where no data are named: their sizes, and how many suit a GPU.
SIZES = ["data=imagenet"]
SAMPLES = 64


def batch(cfg: DictConfig, samples: int) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) and their classes (B,)."""
    images = torch.randn(samples, cfg.model.in_chans, cfg.model.img_size, cfg.model.img_size)
    return images, torch.randint(cfg.model.num_classes, (samples,))
