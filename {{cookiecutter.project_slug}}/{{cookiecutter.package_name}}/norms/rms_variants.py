"""Relatives of RMSNorm, for ablations. They have no bias, whatever `bias` says; outputs have the input's dtype."""

import math
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .functional import dyt
from .precision import keep_fp32
from .registry import register


class _RMSVariant(nn.Module):
    """A norm over (..., dim) with a weight (dim,)."""

    normalizes = True
    one_weight = False  # (1,) instead
    weight: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.dim, self.site, self.eps = dim, site, eps
        size = 1 if self.one_weight else dim
        weight = nn.Parameter(torch.ones(size, device=device, dtype=dtype)) if affine else None
        self.register_parameter("weight", weight)

    def reset_parameters(self) -> None:
        if self.weight is not None:
            nn.init.ones_(self.weight)

    def scaled(self, y: Tensor) -> Tensor:
        return y if self.weight is None else y * self.weight.to(y.dtype)

    def extra_repr(self) -> str:
        return f"{self.dim}, eps={self.eps:g}, affine={self.weight is not None}"


@register("scalenorm")
class ScaleNorm(_RMSVariant):
    """g * sqrt(dim) * x / |x| with one learned g, from 1 (Nguyen and Salazar 2019, arXiv 1910.05895)."""

    one_weight = True

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(F.rms_norm(x, (self.dim,), None, self.eps)).to(x.dtype)


@register("prmsnorm")
class PartialRMSNorm(_RMSVariant):
    """RMSNorm that takes the mean square of the first part of each token alone (arXiv 1910.07467, pRMSNorm).

    Args:
        part: share of the dim elements, rounded up; the paper has 0.0625.
    """

    def __init__(self, dim: int, part: float = 0.0625, **common: Any) -> None:
        super().__init__(dim, **common)
        self.first = math.ceil(part * dim)

    def forward(self, x: Tensor) -> Tensor:
        mean_square = x[..., : self.first].float().square().mean(-1, keepdim=True)
        return self.scaled((x * torch.rsqrt(mean_square + self.eps)).to(x.dtype)).to(x.dtype)


@register("bhyt")
class BHyT(_RMSVariant):
    """weight * tanh(lam / kappa * x / rms(x)), and RMSNorm before the head (Byun et al. 2026, arXiv 2601.09719).

    The paper estimates the second norm's rms in each block from the first one's; here both are computed.

    Args:
        kappa: bound of the inputs in units of their rms, beyond which few of them lie.
        lam0: start of lam, a learned scalar.
    """

    lam: nn.Parameter

    def __init__(self, dim: int, kappa: float = 10.0, lam0: float = 2.0, **common: Any) -> None:
        super().__init__(dim, **common)
        self.kappa, self.lam0 = kappa, lam0
        start = torch.full((1,), lam0, device=common.get("device"), dtype=torch.float32)
        lam = None if self.site == "final" else nn.Parameter(start)
        self.register_parameter("lam", lam)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.lam is not None:
            nn.init.constant_(self.lam, self.lam0)

    def forward(self, x: Tensor) -> Tensor:
        y = F.rms_norm(x, (self.dim,), None, self.eps).to(x.dtype)
        return self.scaled(y).to(x.dtype) if self.lam is None else dyt(y, self.lam / self.kappa, self.weight)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kappa={self.kappa:g}, lam0={self.lam0:g}, site={self.site}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(keep_fp32([] if self.lam is None else [self.lam], fn), recurse)
