"""Diffusion transformers for image generation."""

from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ...config import plain
from ...data import get_kind
from ..family import Family, Script
from . import objectives
from .model import build as build_model
from .module import DiTModule
from .quality import Quality
from .sample import OPTIONS as SAMPLE_OPTIONS
from .sample import sample as run_sample
from .samples import Samples


def build_module(model: nn.Module, cfg: DictConfig, **base: Any) -> DiTModule:
    """Returns the LightningModule of `cfg`, whose model was made for the data's images and classes.

    Raises:
        ValueError: a section `task` that does not go with the data.
    """
    data, task, shape = plain(cfg.data), plain(cfg.task), (cfg.data.in_chans, cfg.data.img_size, cfg.data.img_size)
    to_pixels = get_kind(data["module"]).pixels
    assert to_pixels is not None
    pixels = to_pixels(data)
    quality = Quality(pixels, shape, **task["quality"])
    metrics = ["val/loss", *([f"val/{quality.name}"] if quality.n and quality.validate else [])]
    if task["monitor"] not in metrics:
        raise ValueError(f"monitor={task['monitor']}: choose {' or '.join(metrics)}")
    callbacks = [quality, Samples(pixels, **task["samples"])]
    objective = objectives.build(**plain(cfg.objective))
    return DiTModule(model, objective, shape, cfg.model.num_classes, task["label_dropout"], callbacks, **base)


def example_batch(cfg: DictConfig, samples: int) -> tuple[Tensor, Tensor]:
    """Returns images or latents (B, C, H, W) and their classes (B,)."""
    images = torch.randn(samples, cfg.model.in_chans, cfg.model.img_size, cfg.model.img_size)
    return images, torch.randint(cfg.model.num_classes, (samples,))


FAMILY = Family(
    name="dit",
    build_model=build_model,
    build_module=build_module,
    example_batch=example_batch,
    example_data=["data=latents", "data.vae=none", "data.img_size=32", "data.in_chans=4", "data.num_classes=1000"],
    example_samples=64,
    init_on_device=True,
    sample=Script(run_sample, SAMPLE_OPTIONS),
)
