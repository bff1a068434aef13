"""Group normalisation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .registry import register


@register("gn")
class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018, arXiv 1803.08494) of (B, ..., dim).

    Mean and variance are those of a sample, over all positions and the channels of a group.

    Args:
        groups: number of groups, reduced to its greatest common divisor with `dim`.
    """

    normalizes = True
    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        eps: float = 1e-5,
        groups: int = 32,
    ) -> None:
        super().__init__()
        if groups < 1:
            raise ValueError(f"groups must be 1 or more, not {groups}")
        self.dim, self.groups, self.eps = dim, math.gcd(groups, dim), eps
        for name, learned in ("weight", affine), ("bias", affine and bias):
            vector = nn.Parameter(torch.empty(dim, device=device, dtype=dtype)) if learned else None
            self.register_parameter(name, vector)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (None if one is None else one.to(x.dtype) for one in (self.weight, self.bias))
        return F.group_norm(x.movedim(-1, 1), self.groups, weight, bias, self.eps).movedim(1, -1).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.dim}, groups={self.groups}, eps={self.eps:g}"
