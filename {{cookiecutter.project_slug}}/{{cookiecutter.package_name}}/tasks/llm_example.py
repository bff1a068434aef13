"""Batches of noise for an LLM, where there need be no data: benchmark.py."""

import torch
from omegaconf import DictConfig
from torch import Tensor

# For other models than the task's own, where no data are named: their sizes, and how many suit a GPU.
# Those of the DyT paper's measurements.
SIZES = ["data=tokens", "data.vocab_size=32000", "data.context=4096"]
SAMPLES = 1


def batch(cfg: DictConfig, samples: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, T) and those that follow them (B, T)."""
    tokens = torch.randint(cfg.model.vocab_size, (samples, cfg.model.context + 1))
    return tokens[:, :-1], tokens[:, 1:]
