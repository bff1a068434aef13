"""What a net's norm layers are fed, and where their alphas stand."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..modes import evaluating
from ..norms import PointwiseNorm, is_norm
from ..parallel import whole

SATURATED_BEYOND = 2.0  # |alpha x + shift| from where tanh is within 4 % of its bound


@torch.no_grad()
def norm_sums(net: nn.Module, inputs: Sequence[Any]) -> dict[str, Tensor]:
    """Sums over the inputs of every norm layer in one forward pass, by the layer's name, in the order of execution.

    The pass runs in evaluation mode and goes around `torch.compile`, in which hooks added later would not run; modes
    are restored.

    Returns:
        For each layer a float64 tensor of (4,): how many values it was fed, their sum, the sum of their squares, and
        how many of them it saturates on (0 for a layer without alpha). Sums of several ranks or batches add up.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].detach().float()
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        saturated = x.new_zeros((), dtype=wide)
        alpha = getattr(norm, "alpha", None)
        if alpha is not None:
            shift = getattr(norm, "shift", None)
            inner = torch.addcmul(shift, x, alpha) if shift is not None else x * alpha
            saturated = inner.abs().gt(SATURATED_BEYOND).sum(dtype=wide)
        count = torch.tensor(x.numel(), dtype=wide, device=x.device)
        row = torch.stack([count, x.sum(dtype=wide), x.square().sum(dtype=wide), saturated])
        sums[name] = sums[name] + row if name in sums else row

    hooks = [norm.register_forward_pre_hook(partial(add, name)) for name, norm in named_norms(net)]
    try:
        with torch.compiler.set_stance("force_eager"), evaluating(net):
            net(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return sums


def named_norms(net: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """Every layer of a registered norm, by its place in the net."""
    return ((name, module) for name, module in net.named_modules() if is_norm(module))


def input_readings(layers: Sequence[str], sums: Sequence[Sequence[float]], pointwise: set[str]) -> dict[str, float]:
    """Tags and values of what `norm_sums` counted; saturation for the labels in `pointwise`."""
    values: dict[str, float] = {}
    for label, (count, total, squares, saturated) in zip(labels(layers), sums, strict=True):
        if count:
            std = max(0.0, squares / count - (total / count) ** 2) ** 0.5
            values |= {f"input_std/{label}": std, f"inverse_std/{label}": 1 / max(std, 1e-12)}
            if label in pointwise:
                values[f"saturated/{label}"] = saturated / count
    return values


def scalar_readings(net: nn.Module, layers: Sequence[str]) -> dict[str, float]:
    """Every scalar of every point-wise norm, `alpha/<layer>` and the like; a single copy from the device."""
    norms = zip(labels(layers), (net.get_submodule(layer) for layer in layers), strict=True)
    found = {
        f"{name}/{label}": whole(getattr(norm, name).detach())
        for label, norm in norms
        if isinstance(norm, PointwiseNorm)
        for name in norm.scalars
    }
    return dict(zip(found, torch.cat(list(found.values())).tolist(), strict=True)) if found else {}


def labels(layers: Sequence[str]) -> list[str]:
    """Names that sort as the net executes: `03_blocks.1.norm2`."""
    return [f"{number:02d}_{name}" for number, name in enumerate(layers)]
