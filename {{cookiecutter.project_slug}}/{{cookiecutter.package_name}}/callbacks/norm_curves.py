"""Output against input of single norms, element by element, and how much of an S that is (arXiv 2503.10622, figure 2).

All of it is before weight and bias, as in the paper: they differ by channel and would tear the cloud apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from ..errors import UsageError, did_you_mean
from ..norms import PointwiseNorm
from .norm_statistics import SATURATED_BEYOND, labels, look, named_norms

POINTS = 2**15  # of a cloud, at most

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """weight * tanh(alpha * x) + bias by least squares over a whole cloud; R^2 of it, and of a straight line."""

    weight: float
    alpha: float
    bias: float
    r2: float
    r2_line: float

    def __call__(self, x: Array) -> Array:
        return self.weight * np.tanh(self.alpha * x) + self.bias


@dataclass(frozen=True)
class Cloud:
    """Elements of a norm's input and output, sorted by input.

    Attributes:
        x: (N,), with the least and the greatest of all.
        y: (N,), before weight and bias.
        channel: (N,), from 0 to 1 over the channels.
        curve: of a point-wise norm itself, at `np.linspace(x[0], x[-1], len(curve))`.
        alpha: of a norm that has one.
        saturated: share of the inputs with |alpha x + shift| > 2, likewise.
    """

    x: Array
    y: Array
    channel: Array
    curve: Array | None = None
    alpha: float | None = None
    saturated: float = 0.0


def check_chosen(chosen: str, net: nn.Module) -> None:
    """Raises UsageError if `monitor.curves` names what the net has not."""
    chosen_layers(chosen, list(named_norms(net)))


def chosen_layers(chosen: str, layers: Sequence[str]) -> list[str]:
    """The layers that `monitor.curves` names: by a word, by their number or by name; `layers` in order of execution.

    Raises:
        UsageError: no such layer.
    """
    words = {"first": 0, "middle": len(layers) // 2, "last": len(layers) - 1}
    numbers = words | {str(number): number for number in range(len(layers))}
    numbers |= {name: number for names in (labels(layers), layers) for number, name in enumerate(names)}
    found: set[int] = set()
    for word in filter(None, (word.strip() for word in chosen.split(","))) if layers else ():
        if word not in numbers:
            hint = did_you_mean(word, [*words, *layers])
            last = len(layers) - 1
            raise UsageError(f"monitor.curves={word}: no such norm{hint}; first, middle, last, 0 to {last}, or a name")
        found.add(numbers[word])
    return [layers[number] for number in sorted(found)]


def clouds(net: nn.Module, inputs: Sequence[Any], layers: Sequence[str]) -> dict[str, Cloud]:
    """The clouds of these layers, of one forward pass in evaluation mode; none of a layer that is fed no number."""
    found: dict[str, Cloud | None] = {}

    def see(name: str, norm: nn.Module, x: Tensor, _: Any) -> None:
        if name not in found:  # the look at it calls it again
            found[name] = None
            found[name] = _cloud(norm, x)

    look(net, inputs, {name: partial(see, name) for name in layers})
    return {name: cloud for name, cloud in found.items() if cloud is not None}


def fit(cloud: Cloud) -> Fit:
    """Of all alphas the best, first on a coarse scale; weight and bias follow from each."""
    x, y = cloud.x, cloud.y

    def miss(at: float) -> float:
        return -_r2(np.tanh(np.exp(at) * x), y)

    reach = max(float(np.abs(x).max()), 1e-30)
    coarse = np.log(np.geomspace(0.05, 2000.0, 24) / reach)  # from all but straight to a step
    best = int(np.argmin([miss(at) for at in coarse]))
    alpha = float(np.exp(minimize_scalar(miss, bounds=coarse.take([best - 1, best + 1], mode="clip")).x))
    s = np.tanh(alpha * x)
    weight = float(np.cov(s, y)[0, 1] / max(s.var(ddof=1), 1e-30))
    return Fit(weight, alpha, float(y.mean() - weight * s.mean()), _r2(s, y), _r2(x, y))


def _r2(one: Array, other: Array) -> float:
    """Share of the variance of `other` that a straight line in `one` explains: of none all, and a constant nothing."""
    one, other = one - one.mean(), other - other.mean()
    scale = (one @ one) * (other @ other)
    return float((one @ other) ** 2 / scale) if scale > 0 else float(not other.any())


def _cloud(norm: nn.Module, x: Tensor) -> Cloud | None:
    x = x.float()
    with torch.autocast(x.device.type, enabled=False):
        y = _bare(norm, x)
        finite = x.isfinite() & y.isfinite()
        if x.numel() == 0 or not finite.all():
            return None
        curve = None
        if isinstance(norm, PointwiseNorm):
            grid = torch.linspace(float(x.min()), float(x.max()), 400, dtype=x.dtype, device=x.device)
            curve = _bare(norm, grid[:, None].expand(-1, x.shape[-1]))[:, 0].double().cpu().numpy()
    index = _spread(x.numel())
    flat_x, flat_y = x.flatten(), y.flatten()
    extremes = [one for flat in (flat_x, flat_y) for one in (flat.argmin(), flat.argmax())]
    index = torch.cat([index, torch.stack(extremes).cpu()]).unique().to(x.device)
    values = torch.stack([flat_x[index], flat_y[index], index % x.shape[-1]]).double().cpu().numpy()
    xs, ys, channel = values[:, values[0].argsort(kind="stable")]
    alpha, shift = getattr(norm, "alpha", None), getattr(norm, "shift", None)
    if alpha is None:
        return Cloud(xs, ys, channel / x.shape[-1], curve)
    inner = x * alpha if shift is None else x * alpha + shift
    saturated = float((inner.abs() > SATURATED_BEYOND).float().mean())
    return Cloud(xs, ys, channel / x.shape[-1], curve, float(alpha), saturated)


def _bare(norm: nn.Module, x: Tensor) -> Tensor:
    """The norm's output as if its weight were 1 and its bias 0."""
    plain = {
        name: torch.full_like(vector, name.endswith("weight"), dtype=torch.float32)
        for name, vector in norm.named_parameters()
        if name.rpartition(".")[2] in ("weight", "bias")
    }
    return torch.func.functional_call(norm, plain, (x,)).float()


def _spread(number: int) -> Tensor:
    """At most POINTS of so many places, spread evenly, and over all channels whatever their number divides."""
    if number <= POINTS:
        return torch.arange(number)
    golden = (5**0.5 - 1) / 2
    return (torch.arange(POINTS, dtype=torch.float64) * golden % 1 * number).long()
