"""Norms that map each element by itself, without statistics."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .checks import SITES, known_kernel, known_site, number, positive
from .functional import derf, dyt
from .precision import sparing
from .registry import register

AlphaBySite = Mapping[str, float | None]


class PointwiseNorm(nn.Module):
    """weight * curve(x) + bias, of (..., dim), with a few learned scalars such as alpha in the curve.

    A subclass writes `curve`, or `forward` where it has all of it in one function.

    The scalars are fp32 whatever `dtype` says, and stay fp32 when the module is cast to 16 bits: near 0.5 bf16 has
    steps of 0.004, and an update of 1e-4 would be lost. Their shape is (1,), since FSDP2 refuses ().

    Args:
        weight0: where the weight starts, if there is one.
        scalars: where each starts, by name.
    """

    normalizes = False
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
        weight0: float = 1.0,
        **scalars: float,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.weight0 = positive("weight0", weight0)
        self.scalars = scalars
        for name in scalars:
            self.register_parameter(name, nn.Parameter(torch.empty(1, device=device, dtype=torch.float32)))
        for name, learned in ("weight", affine), ("bias", affine and bias):
            vector = nn.Parameter(torch.empty(dim, device=device, dtype=dtype)) if learned else None
            self.register_parameter(name, vector)
        self.reset_parameters()

    def curve(self, x: Tensor) -> Tensor:
        """Of x's shape. A scalar makes it at least fp32; `forward` returns to x's dtype."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.curve(x)
        y = y if self.weight is None else y * self.weight
        y = y if self.bias is None else y + self.bias
        return y.to(x.dtype)

    def reset_parameters(self) -> None:
        for name, start in self.scalars.items():
            nn.init.constant_(getattr(self, name), start)
        if self.weight is not None:
            nn.init.constant_(self.weight, self.weight0)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        starts = "".join(f", {name}0={start:g}" for name, start in {**self.scalars, "weight": self.weight0}.items())
        return f"{self.dim}{starts}, affine={self.weight is not None}, bias={self.bias is not None}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(sparing([getattr(self, name) for name in self.scalars], fn), recurse)


@register("dyt")
class DyT(PointwiseNorm):
    """Dynamic Tanh, weight * tanh(alpha * x) + bias, of (..., dim) (Zhu et al. 2025, arXiv 2503.10622).

    Args:
        alpha0: where alpha starts.
        alpha0_by_site: where it starts at a site of SITES instead; None there means alpha0.
        weight0: where the weight starts. Twice it at half of alpha0 is the same slope at 0, with less saturation.
        kernel: as in `norms.dyt`.
    """

    alpha: nn.Parameter

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        alpha0: float = 0.5,
        alpha0_by_site: AlphaBySite | None = None,
        weight0: float = 1.0,
        kernel: str = "auto",
    ) -> None:
        alpha = _alpha0_at(site, alpha0, alpha0_by_site)
        super().__init__(dim, site, affine, bias, device, dtype, weight0, alpha=alpha)
        self.kernel = known_kernel(kernel)

    def forward(self, x: Tensor) -> Tensor:
        return dyt(x, self.alpha, self.weight, self.bias, self.kernel)


@register("derf")
class Derf(PointwiseNorm):
    """Dynamic erf, weight * erf(alpha * x + shift) + bias, of (..., dim) (Chen et al. 2025, arXiv 2512.10938).

    Args:
        alpha0: where alpha starts.
        alpha0_by_site: where it starts at a site of SITES instead; None there means alpha0.
        weight0: where the weight starts. Twice it at half of alpha0 is the same slope at 0, with less saturation.
        shift0: where the shift starts.
        kernel: as in `norms.dyt`.
    """

    alpha: nn.Parameter
    shift: nn.Parameter

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        alpha0: float = 0.5,
        alpha0_by_site: AlphaBySite | None = None,
        weight0: float = 1.0,
        shift0: float = 0.0,
        kernel: str = "auto",
    ) -> None:
        alpha = _alpha0_at(site, alpha0, alpha0_by_site)
        super().__init__(dim, site, affine, bias, device, dtype, weight0, alpha=alpha, shift=number("shift0", shift0))
        self.kernel = known_kernel(kernel)

    def forward(self, x: Tensor) -> Tensor:
        return derf(x, self.alpha, self.shift, self.weight, self.bias, self.kernel)


@register("none")
class NoNorm(nn.Module):
    """The identity, without parameters."""

    normalizes = False

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


def _alpha0_at(site: str | None, alpha0: Any, by_site: Any) -> float:
    start = positive("alpha0", alpha0)
    if by_site is not None and not isinstance(by_site, Mapping):
        raise UsageError(f"norm.alpha0_by_site={by_site}: expected a number for each of {', '.join(SITES)}")
    starts = dict.fromkeys(SITES, start)
    for place, value in (by_site or {}).items():
        known_site("norm.alpha0_by_site", place)
        starts[place] = start if value is None else positive(f"alpha0_by_site.{place}", value)
    return start if site is None else starts[known_site("site", site)]
