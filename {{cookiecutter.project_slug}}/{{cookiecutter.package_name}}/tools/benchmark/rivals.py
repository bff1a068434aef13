"""Other libraries' norms, to stand beside ours: those that are installed and that this machine can run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

Build = Callable[[int], nn.Module]  # of a width


def _of(module: str, name: str, **options: Any) -> Build:
    """Imports it when it is asked for."""
    return lambda dim: getattr(import_module(module), name)(dim, **options)


class QuackLayerNorm(nn.Module):
    """quack's kernels behind autograd; they want weight and bias in fp32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return _QuackLayerNorm.apply(x, self.weight, self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuackLayerNorm":
        return super()._apply(lambda tensor: fn(tensor).float(), recurse)


class _QuackLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        quack = import_module("quack.rmsnorm")
        y, rstd, mean = quack.layernorm_fwd(x, weight, bias, return_rstd=True, return_mean=True)
        ctx.save_for_backward(x, weight, rstd, mean)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        x, weight, rstd, mean = ctx.saved_tensors
        return import_module("quack.rmsnorm").layernorm_bwd(x, weight, dy, rstd, mean)


@dataclass(frozen=True)
class Rival:
    """Norms of a package, by our names.

    Args:
        capability: of the least CUDA device that they run on; None for any device.
    """

    package: str
    norms: Mapping[str, Build]
    capability: tuple[int, int] | None = None

    def missing(self, device: torch.device) -> str:
        """Why it cannot take part, in one line; empty if it can."""
        try:
            version(self.package)
        except PackageNotFoundError:
            return f"not installed (pip install {self.package})"
        if self.capability is not None:
            wanted = "an NVIDIA GPU of capability {}.{} or more".format(*self.capability)
            if device.type != "cuda":
                return f"wants {wanted}, and this is {device}"
            if (this := torch.cuda.get_device_capability(device)) < self.capability:
                return "wants {}, and this has {}.{}".format(wanted, *this)
        return ""


RIVALS = {
    "torch": Rival("torch", {"ln": nn.LayerNorm, "rmsnorm": nn.RMSNorm}),
    "liger": Rival(
        "liger-kernel",
        {
            "dyt": _of("liger_kernel.transformers", "LigerDyT"),
            "ln": _of("liger_kernel.transformers", "LigerLayerNorm", bias=True),
            # in place it would overwrite dy, which others need
            "rmsnorm": _of("liger_kernel.transformers", "LigerRMSNorm", in_place=False),
        },
        capability=(7, 0),
    ),
    "quack": Rival(
        "quack-kernels", {"ln": QuackLayerNorm, "rmsnorm": _of("quack.rmsnorm", "QuackRMSNorm")}, capability=(9, 0)
    ),
}
