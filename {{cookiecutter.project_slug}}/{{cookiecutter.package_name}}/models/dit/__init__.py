"""Diffusion transformers for image generation."""

import torch
from omegaconf import DictConfig
from torch import Tensor

from ..family import Family, Script
from .model import build as build_model
from .module import build as build_module
from .sample import OPTIONS as SAMPLE_OPTIONS
from .sample import sample as run_sample


def example_batch(cfg: DictConfig, samples: int) -> tuple[Tensor, Tensor]:
    """Images or latents (B, C, H, W) and their classes (B,)."""
    images = torch.randn(samples, cfg.model.in_chans, cfg.model.img_size, cfg.model.img_size)
    return images, torch.randint(cfg.model.num_classes, (samples,))


FAMILY = Family(
    name="dit",
    build_model=build_model,
    build_module=build_module,
    example_batch=example_batch,
    example_data=["data=latents", "data.img_size=32", "data.in_chans=4", "data.num_classes=1000"],
    example_samples=64,
    init_on_device=True,
    sample=Script(run_sample, SAMPLE_OPTIONS),
)
