"""Group normalisation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .registry import register


@register("gn")
class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He 2018, arXiv 1803.08494) of (B, ..., dim).

    Mean and variance are those of a sample, over all positions and the channels of a group.

    Args:
        groups: number of groups, reduced to its greatest common divisor with `dim`.
    """

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
        groups: int = 32,
    ) -> None:
        if groups < 1:
            raise ValueError(f"groups must be 1 or more, not {groups}")
        super().__init__(math.gcd(groups, dim), dim, eps, affine, device, dtype)
        if not bias:
            self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        for parameter, start in (self.weight, 1.0), (self.bias, 0.0):
            if parameter is not None:
                nn.init.constant_(parameter, start)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (None if one is None else one.to(x.dtype) for one in (self.weight, self.bias))
        return F.group_norm(x.movedim(-1, 1), self.num_groups, weight, bias, self.eps).movedim(1, -1).to(x.dtype)
