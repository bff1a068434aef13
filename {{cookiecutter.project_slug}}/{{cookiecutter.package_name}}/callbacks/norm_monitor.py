"""Logs numbers about every norm layer during training, and prints warnings.

- forward hooks on the norms, in a forward pass of its own, in evaluation mode, on a few samples of the batch at hand
- each quantity is a tag, each layer a name that sorts in the order of execution: `alpha/03_blocks.1.norm2`
- numbers go to all loggers; `figures.py` draws them from `metrics.csv`
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from ..distributed import full_tensor
from ..models.base import BaseModule
from ..norms import PointwiseNorm, is_norm
from ..norms.maps import channels_last
from ..utils import evaluating
from .norm_warnings import NormWarnings, of_layers

SATURATED_BEYOND = 2.0  # |alpha x + shift| from which tanh is within 4 % of its bound

Hook = Callable[[nn.Module, Tensor, Any], None]  # called with a module, its first input and its output


class NormMonitor(L.Callback):
    """Logs the following every `every_n_steps` optimiser steps and at the end of training, over all ranks' samples.

    - `alpha/<layer>`, `shift/<layer>`: the learned scalars of point-wise norms; of an alpha for each channel the mean,
      with `alpha_min/<layer>` and `alpha_max/<layer>`
    - `alpha_grad/<layer>`: the size of alpha's gradient at that step, over all channels
    - `input_std/<layer>`, `inverse_std/<layer>`: the std of the norm's input, and 1/std. Where norms stand at the start
      of residual branches this is the residual stream by depth.
    - `output_std/<block>`: the std of the last block's output, unless a norm has it as its input
    - `saturated/<layer>`: the share of inputs with |alpha x + shift| > 2
    - `alpha_vs_inverse_std/correlation`: Pearson's correlation of log |alpha| and log 1/std over the layers, which is 1
      for alpha = c / std

    Args:
        every_n_steps: 0 turns the monitor off.
        samples: of the batch at hand, per device.
    """

    def __init__(self, every_n_steps: int = 50, samples: int = 16) -> None:
        self.every_n_steps, self.samples = every_n_steps, samples
        self.layers: list[str] = []  # names of all norms, in the order of execution
        self.step = -1  # of the last observation
        self.warnings = NormWarnings()

    def state_dict(self) -> dict[str, Any]:
        return {"layers": self.layers, "warnings": vars(self.warnings)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.layers = state_dict["layers"]
        vars(self.warnings).update(state_dict["warnings"])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step  # the same for several batches while gradients accumulate
        if self.every_n_steps and step % self.every_n_steps == 0 and step != self.step:
            self._observe(trainer, pl_module, batch)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self.step == trainer.global_step:
            assert isinstance(pl_module, BaseModule)
            values = gradient_values(pl_module.model, self.layers)
            log(trainer, values)
            self._warn(trainer, self.warnings.of_gradients(values))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every_n_steps and self.step != trainer.global_step:
            self._observe(trainer, pl_module, next_batch(trainer))

    def inputs(self, task: BaseModule, batch: Any) -> list[Any]:
        """Returns the model's inputs for the first samples of `batch`."""
        return [x[: self.samples] if isinstance(x, Tensor) else x for x in task.hook_inputs(batch)]

    def _observe(self, trainer: L.Trainer, task: L.LightningModule, batch: Any) -> None:
        """Logs everything but gradients."""
        assert isinstance(task, BaseModule)
        with trainer.strategy.precision_plugin.forward_context():
            sums = input_sums(task.model, self.inputs(task, batch))
        if not sums:
            return
        rows = trainer.strategy.reduce(torch.stack(list(sums.values())), reduce_op="sum")
        norms = set(named_norms(task.model))
        self.layers = [name for name in sums if name in norms]
        self.step = trainer.global_step
        values = scalar_values(task.model, self.layers)
        values |= input_values(self.layers, dict(zip(sums, rows.tolist(), strict=True)))
        r = correlation(of_layers("alpha", values), of_layers("inverse_std", values))
        log(trainer, values if r is None else values | {"alpha_vs_inverse_std/correlation": r})
        self._warn(trainer, self.warnings.of_values(self.step, values))

    def _warn(self, trainer: L.Trainer, lines: list[str]) -> None:
        for line in lines if trainer.is_global_zero else []:
            print(f"warning: step {trainer.global_step}: {line} (README, Reading alpha)", flush=True)


def next_batch(trainer: L.Trainer) -> Any:
    """Returns the training batch, on the device, that would come after the last step."""
    batch = next(iter(trainer.train_dataloader))  # type: ignore[arg-type]
    return trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))


def log(trainer: L.Trainer, values: Mapping[str, float]) -> None:
    for logger in trainer.loggers if values else []:
        logger.log_metrics(dict(values), trainer.global_step)


@torch.no_grad()
def forward_with_hooks(model: nn.Module, inputs: Sequence[Any], hooks: Mapping[str, Hook]) -> None:
    """Runs `model(*inputs)` in evaluation mode, with a forward hook on each named module.

    The pass is never compiled, since compiled modules ignore hooks that are added later. Training modes are restored.
    """

    def call(hook: Hook, module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        hook(module, args[0].detach(), output)

    handles = [model.get_submodule(name).register_forward_hook(partial(call, hook)) for name, hook in hooks.items()]
    try:
        with torch.compiler.set_stance("force_eager"), evaluating(model):
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()


def input_sums(model: nn.Module, inputs: Sequence[Any]) -> dict[str, Tensor]:
    """Sums over the input of every norm, and over the last block's output unless a norm has it as its input.

    Returns:
        By name, in the order of execution, (4,) in float64: count of elements, their sum, the sum of their squares, and
        the count of saturated ones (NaN without alpha). Sums of several ranks add up.
    """
    sums: dict[str, Tensor] = {}
    stream: list[Tensor] = []  # the last block's output, as long as no norm has had it

    def add(name: str, norm: nn.Module, x: Tensor, _: Any) -> None:
        if stream and x.data_ptr() == stream[0].data_ptr() and x.shape == stream[0].shape:
            stream.clear()
        sums[name] = sums.get(name, 0) + _sums(norm, x)

    def keep(_: nn.Module, __: Tensor, output: Any) -> None:
        stream[:] = [output.detach()] if isinstance(output, Tensor) else []

    blocks = getattr(model, "blocks", None)
    last = [f"blocks.{len(blocks) - 1}"] if isinstance(blocks, nn.ModuleList | nn.Sequential) and blocks else []
    norms = {name: partial(add, name) for name in named_norms(model)}
    forward_with_hooks(model, inputs, norms | dict.fromkeys(last, keep))
    return sums | {name: _sums(model, stream[0]) for name in last if sums and stream}


def _sums(module: nn.Module, x: Tensor) -> Tensor:
    x = channels_last(module, x).float()
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    beyond = saturated(module, x)
    count = torch.tensor([x.numel(), math.nan], dtype=wide, device=x.device)
    full = count[1] if beyond is None else beyond.sum(dtype=wide)
    return torch.stack([count[0], x.sum(dtype=wide), x.square().sum(dtype=wide), full])


def saturated(norm: nn.Module, x: Tensor) -> Tensor | None:
    """Returns which elements of `x` (..., C) the norm saturates on; None for a norm without alpha."""
    alpha = norm.effective_alpha() if isinstance(norm, PointwiseNorm) else getattr(norm, "alpha", None)
    shift = getattr(norm, "shift", None)
    if alpha is None:
        return None
    return (x * alpha if shift is None else torch.addcmul(shift, x, alpha)).abs() > SATURATED_BEYOND


def input_values(layers: Sequence[str], sums: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Returns tags and values of what `input_sums` has summed."""
    values: dict[str, float] = {}
    label = labels(layers)
    for name, (count, total, squares, full) in sums.items():
        count = max(count, 1.0)
        std = max(0.0, squares / count - (total / count) ** 2) ** 0.5
        if name not in label:
            values[f"output_std/{name}"] = std
            continue
        values |= {f"input_std/{label[name]}": std, f"inverse_std/{label[name]}": 1 / max(std, 1e-12)}
        if not math.isnan(full):
            values[f"saturated/{label[name]}"] = full / count
    return values


def scalar_values(model: nn.Module, layers: Sequence[str]) -> dict[str, float]:
    """Returns the scalars of all point-wise norms by tag, as in `alpha/<layer>`; copied from the device at once."""
    values: dict[str, Tensor] = {}
    for tag, scalar in _scalars(model, layers):
        numbers = full_tensor(scalar.detach())
        values[tag] = numbers.mean()
        if numbers.numel() > 1:
            ends = zip(("_min/", "_max/"), numbers.aminmax(), strict=True)
            values |= {tag.replace("/", end, 1): value for end, value in ends}
    return _numbers(values)


def gradient_values(model: nn.Module, layers: Sequence[str]) -> dict[str, float]:
    """Returns the size of every alpha's present gradient, as `alpha_grad/<layer>`."""
    alphas = ((tag, scalar.grad) for tag, scalar in _scalars(model, layers) if tag.startswith("alpha/"))
    grads = {tag.replace("/", "_grad/", 1): grad for tag, grad in alphas if grad is not None}
    return _numbers({tag: full_tensor(grad).norm() for tag, grad in grads.items()})


def _scalars(model: nn.Module, layers: Sequence[str]) -> Iterator[tuple[str, nn.Parameter]]:
    for layer, label in labels(layers).items():
        norm = model.get_submodule(layer)
        for name in norm.scalars if isinstance(norm, PointwiseNorm) else ():
            yield f"{name}/{label}", getattr(norm, name)


def _numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    return dict(zip(values, torch.stack([*values.values()]).tolist(), strict=True)) if values else {}


def named_norms(model: nn.Module) -> list[str]:
    """Returns the names of all norms, in the order of definition; a BatchNorm inside a norm is none of its own."""
    norms = [name for name, module in model.named_modules() if is_norm(module)]
    return [name for name in norms if name.rpartition(".")[0] not in norms]


def labels(layers: Sequence[str]) -> dict[str, str]:
    """Returns a label for each layer that sorts in the order of execution: `03_blocks.1.norm2`."""
    return {name: f"{number:02d}_{name}" for number, name in enumerate(layers)}


def correlation(alphas: Mapping[str, float], inverse_stds: Mapping[str, float]) -> float | None:
    """Returns Pearson's correlation of log |alpha| and log 1/std over the layers; None if one of them is constant."""
    layers = alphas.keys() & inverse_stds.keys()
    with np.errstate(all="ignore"):
        logs = np.log(np.abs([[values[layer] for layer in layers] for values in (alphas, inverse_stds)]))
    if len(layers) < 2 or not np.isfinite(logs).all() or logs.std(axis=1).min() < 1e-9:
        return None
    return float(np.corrcoef(logs)[0, 1])
