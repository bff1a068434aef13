"""What a net's norm layers are fed, and where their alphas stand."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed import whole
from ..norms import PointwiseNorm, is_norm
from ..utils import evaluating

SATURATED_BEYOND = 2.0  # |alpha x + shift| from where tanh is within 4 % of its bound

See = Callable[[nn.Module, Tensor, Any], None]


@torch.no_grad()
def look(net: nn.Module, inputs: Sequence[Any], see: Mapping[str, See]) -> None:
    """One forward pass, in which `see[name](module, x, y)` is told what each module so named is fed and gives back.

    The pass runs in evaluation mode and goes around `torch.compile`, in which hooks added later would not run; modes
    are restored.
    """

    def hook(see_one: See, module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        see_one(module, args[0].detach(), output)

    hooks = [net.get_submodule(name).register_forward_hook(partial(hook, one)) for name, one in see.items()]
    try:
        with torch.compiler.set_stance("force_eager"), evaluating(net):
            net(*inputs)
    finally:
        for one in hooks:
            one.remove()


def norm_sums(net: nn.Module, inputs: Sequence[Any]) -> dict[str, Tensor]:
    """Sums over the inputs of every norm layer in one forward pass, by the layer's name, in the order of execution.

    Likewise over the output of the last block, by its name, unless that is what a norm is fed.

    Returns:
        For each layer a float64 tensor of (4,): how many values it was fed, their sum, the sum of their squares, and
        how many of them it saturates on (0 for a layer without alpha). Sums of several ranks or batches add up.
    """
    sums: dict[str, Tensor] = {}
    stream: list[Tensor] = []  # the last block's output, if no norm has seen it

    def add(name: str, norm: nn.Module, x: Tensor, _: Any) -> None:
        if stream and x.data_ptr() == stream[0].data_ptr() and x.shape == stream[0].shape:
            stream.clear()
        row = _sums(x, norm)
        sums[name] = sums[name] + row if name in sums else row

    def keep(_: nn.Module, __: Tensor, output: Any) -> None:
        stream[:] = [output.detach()] if isinstance(output, Tensor) else []

    last = _last_block(net)
    see: dict[str, See] = {name: partial(add, name) for name in named_norms(net)}
    look(net, inputs, see | dict.fromkeys(last, keep))
    return sums | {name: _sums(stream[0], net) for name in last if sums and stream}


def named_norms(net: nn.Module) -> Iterator[str]:
    """The place in the net of every layer of a registered norm."""
    return (name for name, module in net.named_modules() if is_norm(module))


def input_readings(layers: Sequence[str], sums: Mapping[str, Sequence[float]], pointwise: set[str]) -> dict[str, float]:
    """Tags and values of what `norm_sums` counted; saturation for the labels in `pointwise`."""
    values: dict[str, float] = {}
    for name, label in zip(layers, labels(layers), strict=True):
        std = _std(*sums[name][:3])
        values |= {f"input_std/{label}": std, f"inverse_std/{label}": 1 / max(std, 1e-12)}
        if label in pointwise:
            values[f"saturated/{label}"] = sums[name][3] / max(sums[name][0], 1.0)
    return values | {f"output_std/{name}": _std(*row[:3]) for name, row in sums.items() if name not in layers}


def scalar_readings(net: nn.Module, layers: Sequence[str]) -> dict[str, float]:
    """Every scalar of every point-wise norm, `alpha/<layer>` and the like; a single copy from the device."""
    return _numbers({tag: scalar.detach() for tag, scalar in _scalars(net, layers)})


def gradient_readings(net: nn.Module, layers: Sequence[str]) -> dict[str, float]:
    """`alpha_grad/<layer>`, the size of the gradient that every alpha has at the moment; a single copy, too."""
    alphas = ((tag, scalar.grad) for tag, scalar in _scalars(net, layers) if tag.startswith("alpha/"))
    return _numbers({tag.replace("/", "_grad/", 1): grad.abs() for tag, grad in alphas if grad is not None})


def labels(layers: Sequence[str]) -> list[str]:
    """Names that sort as the net executes: `03_blocks.1.norm2`."""
    return [f"{number:02d}_{name}" for number, name in enumerate(layers)]


def _sums(x: Tensor, norm: nn.Module) -> Tensor:
    x = x.float()
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    saturated = x.new_zeros((), dtype=wide)
    alpha = getattr(norm, "alpha", None)
    if alpha is not None:
        shift = getattr(norm, "shift", None)
        inner = torch.addcmul(shift, x, alpha) if shift is not None else x * alpha
        saturated = inner.abs().gt(SATURATED_BEYOND).sum(dtype=wide)
    count = torch.tensor(x.numel(), dtype=wide, device=x.device)
    return torch.stack([count, x.sum(dtype=wide), x.square().sum(dtype=wide), saturated])


def _std(count: float, total: float, squares: float) -> float:
    count = max(count, 1.0)
    return max(0.0, squares / count - (total / count) ** 2) ** 0.5


def _last_block(net: nn.Module) -> list[str]:
    """Its name, if the net has blocks."""
    blocks = getattr(net, "blocks", None)
    return [f"blocks.{len(blocks) - 1}"] if isinstance(blocks, nn.ModuleList | nn.Sequential) and len(blocks) else []


def _scalars(net: nn.Module, layers: Sequence[str]) -> Iterator[tuple[str, nn.Parameter]]:
    for label, layer in zip(labels(layers), layers, strict=True):
        norm = net.get_submodule(layer)
        for name in norm.scalars if isinstance(norm, PointwiseNorm) else ():
            yield f"{name}/{label}", getattr(norm, name)


def _numbers(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    if not scalars:
        return {}
    return dict(zip(scalars, torch.cat([whole(scalar) for scalar in scalars.values()]).tolist(), strict=True))
