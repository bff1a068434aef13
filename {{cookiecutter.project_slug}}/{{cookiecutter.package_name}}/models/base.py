"""The base class of every family's LightningModule: optimiser, schedule, clipping, EMA and compilation."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ..distributed import full_tensor, shard
from .mean import Mean
from .optim import lr_factor, make_optimizer


class BaseModule(L.LightningModule):
    """A model with its objective. Subclasses write `training_step`, `evaluate_batch`, the metrics and `model_inputs`.

    Args:
        model: the network; `self.model` is trained, `self.eval_model` validated, tested and sampled from.
        optim: section `optim` of the config.
        schedule: section `schedule`.
        ema_decay: of an exponential moving average of the model's parameters and buffers, kept after every optimiser
            step; 0 for none. Early on the decay is (1 + n) / (10 + n) after n steps, so that the average forgets the
            initial weights.
        compile: whether `model` runs through `torch.compile`, in the pieces that `compiled_parts` says.
        seed: of the weights of a model that is drawn late, once it is sharded.
    """

    unit = "samples"  # what throughput counts
    units_per_sample = 1
    classifies = False  # whether the model's outputs are logits, in their last dimension

    def __init__(
        self,
        model: nn.Module,
        optim: Mapping[str, Any],
        schedule: Mapping[str, Any],
        ema_decay: float = 0.0,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.ema = copy.deepcopy(model).requires_grad_(False) if ema_decay else None
        self.optim, self.schedule, self.ema_decay = dict(optim), dict(schedule), ema_decay
        self.compiled, self.seed = compile, seed
        self._losses = nn.ModuleDict({stage: Mean() for stage in ("val", "test")})

    @property
    def eval_model(self) -> nn.Module:
        return self.model if self.ema is None else self.ema

    def model_inputs(self, batch: Any) -> tuple[Any, ...]:
        """Returns the model's arguments for a batch."""
        raise NotImplementedError

    def hook_inputs(self, batch: Any) -> tuple[Any, ...]:
        """Returns arguments for forward hooks on layers, if others than the model's save memory."""
        return self.model_inputs(batch)

    def evaluate_batch(self, stage: str, batch: Any, batch_idx: int) -> None:
        """Updates the metrics of validation ("val") or test ("test") with a batch."""
        raise NotImplementedError

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate_batch("val", batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate_batch("test", batch, batch_idx)

    def collect_report(self) -> None:
        """Lets the next evaluation measure what training does not: more metrics, and what `write_report` writes."""

    def write_report(self, folder: Path, split: str, class_names: Sequence[str]) -> list[Path]:
        """Writes files about the evaluation of `split` to a folder; returns their paths."""
        return []

    def mean_loss(self, stage: str) -> Mean:
        """Returns the mean loss of a stage, over all batches and devices."""
        return cast(Mean, self._losses[stage])

    def configure_model(self) -> None:
        """Compiles in place, so that the keys of the state dict stay as they are, and shards where FSDP is asked for.

        All before DDP wraps. Lightning calls this for every stage: what is done already stays.
        """
        for model in dict.fromkeys((self.model, self.eval_model)):
            if self.compiled:
                compile_parts(self.compiled_parts(model))
            if self.device_mesh is not None:
                shard(model, self.device_mesh["data_parallel"], str(self.trainer.precision), self.seed)

    @property
    def logs_this_step(self) -> bool:
        """Returns whether Lightning logs the current optimiser step."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return (self.trainer.global_step + 1) % every == 0

    def compiled_parts(self, model: nn.Module) -> list[nn.Module]:
        """Returns the blocks of a model, which torch compiles once for all that are alike; without blocks the model."""
        blocks = getattr(model, "blocks", None)
        return list(blocks) if isinstance(blocks, nn.ModuleList | nn.Sequential) else [model]

    def configure_optimizers(self) -> Any:
        total = self.trainer.max_steps
        optimizer = make_optimizer(self.model, self.optim, self._may_fuse())
        factor = lr_factor(total, **self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self.logs_this_step:  # not by self.log, which copies a number to the device
            for logger in self.trainer.loggers:
                logger.log_metrics({"lr": optimizer.param_groups[0]["lr"]}, self.trainer.global_step)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips the norm of all gradients to `optim.clip_norm` (0: not at all), and logs what it was before."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = full_tensor(nn.utils.get_total_norm(gradients))
        if self.optim["clip_norm"]:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.optim["clip_norm"], norm)
        self.log("train/grad_norm", norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            step = self.trainer.global_step + 1  # counted once this hook returns
            update_average(self.ema, self.model, min(self.ema_decay, (1 + step) / (10 + step)))

    def _may_fuse(self) -> bool:
        """Fused AdamW unscales fp16 gradients itself, after the clipping that should see them unscaled."""
        return self.trainer.precision != "16-mixed" and self.device.type in ("cpu", "cuda")


def compile_parts(parts: Sequence[nn.Module]) -> None:
    """Compiles modules in place."""
    # Blocks share one limit of compilations, and may all differ, in their rate of stochastic depth say.
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 2 * len(parts))
    for part in parts:
        if part._compiled_call_impl is None:
            part.compile()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Sets `average` to decay * average + (1 - decay) * model: parameters and buffers; integers are those of model."""
    for kind in (nn.Module.parameters, nn.Module.buffers):  # apart: FSDP shards the parameters alone
        pairs = list(zip(kind(average), kind(model), strict=True))
        floats = [(one, other) for one, other in pairs if one.is_floating_point()]
        if floats:
            torch._foreach_lerp_([one for one, _ in floats], [other for _, other in floats], 1 - decay)
        for one, other in pairs:
            if not one.is_floating_point():
                one.copy_(other)
