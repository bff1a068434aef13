"""A LLaMA for language modelling."""

import torch
from omegaconf import DictConfig
from torch import Tensor

from ..family import Family, Script
from .export import OPTIONS as EXPORT_OPTIONS
from .export import export as run_export
from .huggingface import load_pretrained
from .model import build as build_model
from .module import build as build_module
from .sample import OPTIONS as SAMPLE_OPTIONS
from .sample import sample as run_sample


def example_batch(cfg: DictConfig, samples: int) -> tuple[Tensor, Tensor]:
    """Returns random tokens (B, T) and their targets (B, T)."""
    tokens = torch.randint(cfg.model.vocab_size, (samples, cfg.model.context + 1))
    return tokens[:, :-1], tokens[:, 1:]


FAMILY = Family(
    name="llm",
    build_model=build_model,
    build_module=build_module,
    example_batch=example_batch,
    example_data=["data=tokens", "data.vocab_size=32000", "data.context=4096"],
    example_samples=1,
    init_on_device=True,
    pretrained=load_pretrained,
    sample=Script(run_sample, SAMPLE_OPTIONS),
    export=Script(run_export, EXPORT_OPTIONS),
    shift_metric=("bits_per_byte", "min"),
)
