"""The LightningModule of CNNs: a classifier with adaptive gradient clipping."""

from typing import Any

from omegaconf import DictConfig
from timm.utils.agc import adaptive_clip_grad
from torch import nn

from ..classification.module import Classifier


class CNNModule(Classifier):
    """A classifier.

    Args:
        agc: largest norm of a filter's gradient over that of the filter (adaptive gradient clipping, Brock et al. 2021,
            arXiv 2102.06171), which the last layer is free of; 0 for none.
    """

    def __init__(self, model: nn.Module, agc: float = 0.0, **classifier: Any) -> None:
        super().__init__(model, **classifier)
        self.agc = agc

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        super().configure_gradient_clipping(optimizer, *args, **kwargs)
        if self.agc:
            model: Any = self.model
            head = set(model.get_classifier().parameters())
            adaptive_clip_grad([one for one in model.parameters() if one not in head], self.agc)


def build(model: nn.Module, cfg: DictConfig, **base: Any) -> CNNModule:
    """Returns the LightningModule for a config."""
    task = cfg.task
    return CNNModule(
        model, agc=task.agc, num_classes=cfg.model.num_classes, label_smoothing=task.label_smoothing, **base
    )
