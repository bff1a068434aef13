"""The network of a config."""

import torch
from omegaconf import DictConfig
from torch import nn

from . import get_family
from .trained import build_from


def build_model(cfg: DictConfig, device: torch.device | str | None = None) -> nn.Module:
    """Returns the network of the config's family, drawn from the run's seed; on "meta" it takes no memory.

    Raises:
        ValueError: values that do not fit together.
    """
    return build_from(get_family(cfg.task.name).build_model, cfg, device)
