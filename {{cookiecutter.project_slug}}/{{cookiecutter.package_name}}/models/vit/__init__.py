"""Vision transformers for image classification."""

import torch
from omegaconf import DictConfig
from torch import Tensor

from ..family import Family, Script
from .model import build as build_model
from .model import load_pretrained
from .module import build as build_module
from .predict import OPTIONS as PREDICT_OPTIONS
from .predict import predict as run_predict


def example_batch(cfg: DictConfig, samples: int) -> tuple[Tensor, Tensor]:
    """Returns random images (B, C, H, W) and classes (B,)."""
    images = torch.randn(samples, cfg.model.in_chans, cfg.model.img_size, cfg.model.img_size)
    return images, torch.randint(cfg.model.num_classes, (samples,))


FAMILY = Family(
    name="vit",
    build_model=build_model,
    build_module=build_module,
    example_batch=example_batch,
    example_data=["data=imagenet"],
    example_samples=64,
    pretrained=load_pretrained,
    resized=("head",),
    predict=Script(run_predict, PREDICT_OPTIONS),
    shift_metric=("acc", "max"),
)
