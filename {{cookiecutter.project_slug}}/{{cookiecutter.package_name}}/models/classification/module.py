"""Image classification, for every family of classifiers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from ..base import BaseModule
from .confusion import MAX_CLASSES, BalancedAccuracy
from .confusion import write as write_confusion


class Classifier(BaseModule):
    """An image classifier, trained with the cross entropy.

    Targets are class indices (B,) or, after Mixup or CutMix, class probabilities (B, K). Validation and test log the
    mean cross entropy without label smoothing, and top-1 and top-5 accuracy.

    Args:
        num_classes: K.
        label_smoothing: share of the target that is spread over all classes in training.
    """

    classifies = True

    def __init__(self, model: nn.Module, num_classes: int, label_smoothing: float = 0.0, **base: Any) -> None:
        super().__init__(model, **base)
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        self.balanced_acc: BalancedAccuracy | None = None
        metrics = MetricCollection(
            {"acc": _accuracy(num_classes, 1), "acc5": _accuracy(num_classes, min(5, num_classes))}
        )
        self.metrics = nn.ModuleDict({stage: metrics.clone(prefix=f"{stage}/") for stage in ("val", "test")})

    def model_inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        return (batch[0],)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, target = batch
        loss = F.cross_entropy(self.model(images).float(), target, label_smoothing=self.label_smoothing)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def evaluate_batch(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, target = batch
        logits = self.eval_model(images).float()
        loss, metrics = self.mean_loss(stage), self.metrics[stage]
        assert isinstance(metrics, MetricCollection)
        loss.update(F.cross_entropy(logits, target, reduction="sum"), len(target))
        metrics.update(logits, target)
        self.log(f"{stage}/loss", loss, prog_bar=True)
        self.log_dict(metrics)
        if self.balanced_acc is not None:
            self.balanced_acc.update(logits, target)
            self.log(f"{stage}/balanced_acc", self.balanced_acc)

    def collect_report(self) -> None:
        if self.num_classes <= MAX_CLASSES:
            self.balanced_acc = BalancedAccuracy(self.num_classes, validate_args=False)

    def write_report(self, folder: Path, split: str, class_names: Sequence[str]) -> list[Path]:
        if self.balanced_acc is None or self.balanced_acc.matrix is None:
            return []
        return write_confusion(self.balanced_acc.matrix, class_names, folder / f"confusion_{split}")


def build(model: nn.Module, cfg: DictConfig, **base: Any) -> Classifier:
    """Returns the LightningModule for a config."""
    return Classifier(model, num_classes=cfg.model.num_classes, label_smoothing=cfg.task.label_smoothing, **base)


def example_batch(cfg: DictConfig, samples: int) -> tuple[Tensor, Tensor]:
    """Returns random images (B, C, H, W) and classes (B,)."""
    images = torch.randn(samples, cfg.model.in_chans, cfg.model.img_size, cfg.model.img_size)
    return images, torch.randint(cfg.model.num_classes, (samples,))


def _accuracy(num_classes: int, top_k: int) -> MulticlassAccuracy:
    return MulticlassAccuracy(num_classes, top_k=top_k, average="micro", validate_args=False)
