"""Norms over channels-first maps (B, C, ...), made from the classes of the registry."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from .precision import keep_fp32

_made: dict[type[nn.Module], type[nn.Module]] = {}


class ChannelsFirst(nn.Module):
    """A base that moves the channels of (B, C, ...) last for another class's forward, and back, without a copy."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x.movedim(1, -1))
        return y.movedim(-1, 1)


class BatchNorm2d(nn.BatchNorm2d):
    """torch's batch normalisation of (B, C, H, W). Cast to 16 bits it stays fp32, as in TokenBatchNorm."""

    normalizes = True

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        dtype = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        super().__init__(dim, eps, momentum, affine, device=device, dtype=dtype)
        if not bias:
            self.register_parameter("bias", None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(keep_fp32([*self.parameters(), *self.buffers()], fn), recurse)


def channels_first(cls: type[nn.Module]) -> type[nn.Module]:
    """Returns the class over (B, C, ...) for one over (..., C): its attribute `over_maps`, or a subclass of it."""
    if cls not in _made:
        _made[cls] = getattr(cls, "over_maps", None) or type(f"{cls.__name__}2d", (ChannelsFirst, cls), {})
    return _made[cls]


def channels_last(norm: nn.Module, x: Tensor) -> Tensor:
    """Returns an input or output of `norm` as (..., C)."""
    return x.movedim(1, -1) if isinstance(norm, ChannelsFirst | nn.BatchNorm2d | nn.SyncBatchNorm) else x
