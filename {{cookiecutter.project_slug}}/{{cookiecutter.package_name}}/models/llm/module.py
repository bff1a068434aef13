"""Language modelling: prediction of the next token."""

import math
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from ..base import BaseModule


class LLMModule(BaseModule):
    """A language model, trained with the cross entropy in nats per token.

    A batch is (inputs, targets), token ids (B, T) each; the target -100 is left out. Validation and test log the mean
    over all tokens, and `bits_per_byte`, which compares texts in different tokens. Bytes per token are those of the
    whole split, so `bits_per_byte` of a part of it is an approximation.

    Args:
        context: tokens per sample.
    """

    unit = "tokens"
    classifies = True

    def __init__(self, model: nn.Module, context: int, **base: Any) -> None:
        super().__init__(model, **base)
        self.units_per_sample = context

    def model_inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        return (batch[0],)

    def hook_inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return batch  # with targets, so that the logits are computed in chunks

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self.model(*batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def evaluate_batch(self, stage: str, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        number = (batch[1] >= 0).sum()
        self.mean_loss(stage).update(self.eval_model(*batch).float() * number, number)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        metric = self.mean_loss(stage)
        loss = metric.compute()
        metric.reset()
        per_byte = math.log(2) * self.trainer.datamodule.bytes_per_token[stage]  # type: ignore[attr-defined]
        self.log_dict({f"{stage}/loss": loss, f"{stage}/bits_per_byte": loss / per_byte}, prog_bar=True)


def build(model: nn.Module, cfg: DictConfig, **base: Any) -> LLMModule:
    """Returns the LightningModule for a config."""
    return LLMModule(model, context=cfg.data.context, **base)
