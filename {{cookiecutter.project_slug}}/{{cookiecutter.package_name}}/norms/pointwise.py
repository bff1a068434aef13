"""Norms that map each element by itself, without statistics."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from .functional import derf, dyt, known_kernel, pointwise
from .precision import keep_fp32
from .registry import SITES, register

ALPHA_PER = ("layer", "channel", "none")
NEWEST = 0.01  # share of the newest batch in a running scale


class PointwiseNorm(nn.Module):
    """weight * curve(x) + bias over (..., dim), with a few learned scalars such as alpha in the curve.

    A subclass writes `curve`, or `forward` where one function does all of it. The scalars have shape (1,), since FSDP2
    refuses (), and are fp32 whatever `dtype` says, also after the module is cast to 16 bits: near 0.5 the steps of bf16
    are 0.004, and an update of 1e-4 would be lost. alpha may be one of them in every channel, (dim,).

    Args:
        site: what the norm stands before, one of SITES; here it changes nothing.
        affine: learn a weight and a bias.
        bias: without it `affine` is the weight alone.
        eps: taken because models pass it to any norm; it changes nothing.
        weight0: start of the weight.
        alpha_per: "layer", "channel", or "none" for no alpha: its place in the curve is then empty, as if it were 1.
        running_scale: `effective_alpha` is alpha over the input's rms, a moving average over training that no gradient
            goes through (arXiv 2604.01563).
        scalars: start of each scalar, by name.
    """

    normalizes = False
    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_square: Tensor | None

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        eps: float | None = None,
        weight0: float = 1.0,
        alpha_per: str = "layer",
        running_scale: bool = False,
        **scalars: float,
    ) -> None:
        super().__init__()
        if alpha_per not in ALPHA_PER:
            raise ValueError(f"alpha_per is {' or '.join(ALPHA_PER)}, not {alpha_per}")
        if alpha_per == "none":
            scalars.pop("alpha", None)
            self.register_parameter("alpha", None)
        self.dim, self.weight0, self.alpha_per, self.scalars = dim, weight0, alpha_per, scalars
        for name in scalars:
            size = dim if name == "alpha" and alpha_per == "channel" else 1
            self.register_parameter(name, nn.Parameter(torch.empty(size, device=device, dtype=torch.float32)))
        square = torch.empty(1, device=device, dtype=torch.float32) if running_scale else None
        self.register_buffer("running_square", square)  # of the input's elements; 0 before the first batch
        for name, learned in ("weight", affine), ("bias", affine and bias):
            vector = nn.Parameter(torch.empty(dim, device=device, dtype=dtype)) if learned else None
            self.register_parameter(name, vector)
        self.reset_parameters()

    def curve(self, x: Tensor) -> Tensor:
        """Returns the curve of x, of its shape. A scalar makes it at least fp32; `forward` returns to x's dtype."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.curve(x)
        y = y if self.weight is None else y * self.weight
        y = y if self.bias is None else y + self.bias
        return y.to(x.dtype)

    def effective_alpha(self) -> Tensor | None:
        """Returns what multiplies x: alpha, over the running rms of the input if there is one."""
        alpha = getattr(self, "alpha", None)
        if self.running_square is None:
            return alpha
        scale = torch.where(self.running_square > 0, self.running_square, 1.0).rsqrt()
        return scale if alpha is None else alpha * scale

    def alpha_for(self, x: Tensor) -> Tensor | None:
        """Returns `effective_alpha`; in training the running rms takes in x first."""
        if self.training and self.running_square is not None:
            with torch.no_grad():
                square = x.detach().float().square().mean()
                share = torch.where(self.running_square > 0, NEWEST, 1.0)
                self.running_square.lerp_(square.expand(1), share)
        return self.effective_alpha()

    def reset_parameters(self) -> None:
        if self.running_square is not None:
            nn.init.zeros_(self.running_square)
        for name, start in self.scalars.items():
            nn.init.constant_(getattr(self, name), start)
        if self.weight is not None:
            nn.init.constant_(self.weight, self.weight0)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        starts = "".join(f", {name}0={start:g}" for name, start in {**self.scalars, "weight": self.weight0}.items())
        learned = f"affine={self.weight is not None}, bias={self.bias is not None}"
        scale = "" if self.running_square is None else ", running_scale=True"
        return f"{self.dim}{starts}, alpha_per={self.alpha_per}{scale}, {learned}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = [getattr(self, name) for name in self.scalars]
        return super()._apply(keep_fp32([*kept, *self.buffers()], fn), recurse)


class CurveNorm(PointwiseNorm):
    """weight * f(alpha * x) + bias over (..., dim), for an f of `functional.CURVES`, which subclasses name.

    Args:
        alpha0: start of alpha.
        alpha0_by_site: start of alpha at each of SITES; None there means alpha0.
        alpha_per: "layer", "channel", or "none", which leaves alpha out.
        running_scale: alpha is divided by the input's rms, a moving average over training.
        weight0: start of the weight. Twice it at half of alpha0 is the same slope at 0, with less saturation.
        common: arguments of PointwiseNorm, among them the start of another scalar.
    """

    curve_name: str
    alpha: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        alpha0: float = 0.5,
        alpha0_by_site: Mapping[str, float | None] | None = None,
        alpha_per: str = "layer",
        running_scale: bool = False,
        weight0: float = 1.0,
        **common: Any,
    ) -> None:
        alpha = _alpha0_at(site, alpha0, alpha0_by_site)
        shared: Any = {"weight0": weight0, "alpha_per": alpha_per, "running_scale": running_scale}
        super().__init__(dim, site, alpha=alpha, **shared, **common)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(self.curve_name, x, self.alpha_for(x), None, self.weight, self.bias)


@register("dyt")
class DyT(CurveNorm):
    """Dynamic Tanh, weight * tanh(alpha * x) + bias over (..., dim) (Zhu et al. 2025, arXiv 2503.10622).

    Args:
        kernel: as in `norms.dyt`; the rest is as in CurveNorm.
    """

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        alpha0: float = 0.5,
        alpha0_by_site: Mapping[str, float | None] | None = None,
        alpha_per: str = "layer",
        running_scale: bool = False,
        weight0: float = 1.0,
        kernel: str = "auto",
        **common: Any,
    ) -> None:
        super().__init__(dim, site, alpha0, alpha0_by_site, alpha_per, running_scale, weight0, **common)
        self.kernel = known_kernel(kernel)

    def forward(self, x: Tensor) -> Tensor:
        return dyt(x, self.alpha_for(x), self.weight, self.bias, self.kernel)


@register("derf")
class Derf(CurveNorm):
    """Dynamic erf, weight * erf(alpha * x + shift) + bias over (..., dim) (Chen et al. 2025, arXiv 2512.10938).

    Args:
        shift0: start of the shift.
        alpha0, alpha0_by_site, alpha_per, running_scale, weight0, kernel: as in DyT.
    """

    shift: nn.Parameter

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        alpha0: float = 0.5,
        alpha0_by_site: Mapping[str, float | None] | None = None,
        alpha_per: str = "layer",
        running_scale: bool = False,
        weight0: float = 1.0,
        shift0: float = 0.0,
        kernel: str = "auto",
        **common: Any,
    ) -> None:
        super().__init__(dim, site, alpha0, alpha0_by_site, alpha_per, running_scale, weight0, shift=shift0, **common)
        self.kernel = known_kernel(kernel)

    def forward(self, x: Tensor) -> Tensor:
        return derf(x, self.alpha_for(x), self.shift, self.weight, self.bias, self.kernel)


@register("isru")
class ISRU(CurveNorm):
    """The inverse square root unit, f(u) = u / sqrt(1 + u^2)."""

    curve_name = "isru"


@register("dyisru")
class DyISRU(ISRU):
    """Dynamic ISRU, weight * sqrt(dim) * x / sqrt(beta + x^2) + bias (Stollenwerk 2025, arXiv 2503.21708).

    It is RMSNorm with a learned constant, beta, in the place of the other elements' squares. Here beta is alpha^-2, so
    that it is sqrt(dim) times an ISRU. The paper gives no start of beta.

    Args:
        alpha0, alpha0_by_site: starts of alpha * sqrt(dim). At 1 the slope at 0 is 1, as RMSNorm's is for an input of
            std 1.
    """

    def __init__(
        self,
        dim: int,
        site: str | None = None,
        alpha0: float = 1.0,
        alpha0_by_site: Mapping[str, float | None] | None = None,
        alpha_per: str = "layer",
        running_scale: bool = False,
        weight0: float = 1.0,
        **common: Any,
    ) -> None:
        alpha = _alpha0_at(site, alpha0, alpha0_by_site) * dim**-0.5
        super().__init__(dim, site, alpha, None, alpha_per, running_scale, weight0, **common)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.dim**0.5
        weight = x.new_full((self.dim,), scale) if self.weight is None else self.weight * scale
        return pointwise(self.curve_name, x, self.alpha_for(x), None, weight, self.bias)


@register("arctan")
class Arctan(CurveNorm):
    """The arc tangent, f(u) = 2 / pi * atan(u)."""

    curve_name = "arctan"


@register("softsign")
class Softsign(CurveNorm):
    """f(u) = u / (1 + |u|)."""

    curve_name = "softsign"


@register("hardtanh")
class Hardtanh(CurveNorm):
    """u, cut off at -1 and 1."""

    curve_name = "hardtanh"


@register("sigmoid")
class Sigmoid(CurveNorm):
    """f(u) = 1 / (1 + exp(-u)), which is not centred at 0."""

    curve_name = "sigmoid"


@register("expsign")
class ExpSign(CurveNorm):
    """f(u) = sign(u) (1 - exp(-|u|))."""

    curve_name = "expsign"


@register("none")
class NoNorm(nn.Module):
    """The identity, without parameters."""

    normalizes = False

    def __init__(self, dim: int, **common: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


def _alpha0_at(site: str | None, alpha0: float, by_site: Mapping[str, float | None] | None) -> float:
    for name in (*(by_site or {}), *([] if site is None else [site])):
        if name not in SITES:
            raise ValueError(f"{name} is no site of a norm; choose from {', '.join(SITES)}")
    value = (by_site or {}).get(site) if site else None
    start = alpha0 if value is None else value
    if not start > 0:
        raise ValueError(f"alpha must start above 0, not at {start}")
    return start
