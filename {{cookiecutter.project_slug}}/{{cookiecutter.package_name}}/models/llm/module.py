"""Language modelling: the next token from those before it."""

import math
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from ...errors import require
from ..base import BaseModule


class LLMModule(BaseModule):
    """Mean cross entropy in nats per token on (inputs, targets) of (B, T) token ids each; target -100 counts for none.

    Validation and test log it over all tokens, and `bits_per_byte`, which texts in other tokens can be compared by: the
    loss over the bytes that a token of the whole split stands for, so a near value where a part of it is looked at.

    Args:
        context: tokens of a sample.
    """

    unit = "tokens"
    classifies = True

    def __init__(self, net: nn.Module, context: int, **base: Any) -> None:
        super().__init__(net, **base)
        self.units_per_sample = context

    def model_inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        return (batch[0],)

    def hook_inputs(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return batch  # with targets the logits are made in chunks

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


def build(net: nn.Module, cfg: DictConfig, **base: Any) -> LLMModule:
    """The task of `cfg`, whose model reads texts as long as the data's."""
    monitor, mode = cfg.task.monitor, cfg.task.monitor_mode
    wrong = f"task.monitor={monitor}, task.monitor_mode={mode}: choose val/loss (min) or val/bits_per_byte (min)"
    require(monitor in ("val/loss", "val/bits_per_byte") and mode == "min", wrong)
    context, known = cfg.data.context, cfg.model.context
    require(context <= known, f"data.context={context}: the net reads at most {known} tokens at once")
    tokens, known = cfg.data.vocab_size, cfg.model.vocab_size
    require(tokens <= known, f"model.vocab_size={known}: the data have {tokens} tokens; choose as many, or more")
    return LLMModule(net, context=context, **base)
