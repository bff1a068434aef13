"""Point-wise norms fitted to the input and output of another norm, by least squares."""

import copy
import math

import torch
from torch import Tensor

from .pointwise import PointwiseNorm

STEEPEST = 30.0  # alpha times the std of x where the search starts at most
FLATTEST = 0.05  # and the least that is allowed: below it the curve is a straight line, and alpha could vanish
FLAT = 1e-6  # a channel whose curve varies less than this share of the average channel's has no weight to fit
ROWS = 4096  # tokens that are used at most: two numbers for each channel need no more


@torch.no_grad()
def calibrate_(norm: PointwiseNorm, x: Tensor, y: Tensor) -> float:
    """Sets the parameters of `norm` in place so that the squares of norm(x) - y are least, in float64.

    For given scalars (alpha, and Derf's shift) weight and bias are a linear regression in every channel, so only the
    scalars are searched for (variable projection, Golub and Pereyra 1973). Without a bias the regression goes through
    the origin. An alpha for each channel is one number over the std of the channel, and that number is searched for.

    Args:
        x, y: (N, dim), the input and the output of the other norm.

    Returns:
        The norm of norm(x) - y over that of y.

    Raises:
        ValueError: x or y is not finite.
    """
    from scipy.optimize import minimize  # takes a moment to import

    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("a norm cannot be fitted to numbers that are not finite; does the trained model diverge?")
    device = torch.device("cpu") if x.device.type == "mps" else x.device  # which has no float64
    x, y = x.to(device, torch.float64), y.to(device, torch.float64)
    bare = copy.deepcopy(norm).to(device, torch.float64)
    bare.weight = bare.bias = None
    names = sorted(norm.scalars, key=lambda name: name != "alpha")  # alpha first, which is searched as its logarithm

    def fit(point: list[float]) -> tuple[Tensor, Tensor, float]:
        for name, value in zip(names, point, strict=True):
            getattr(bare, name).copy_(math.exp(value) / scale if name == "alpha" else torch.tensor(value))
        return _regression(bare.forward(x), y, norm.weight is not None, norm.bias is not None)

    over, least = (x, 0.1) if norm.alpha_per == "channel" else (x.flatten(), 1e-3)  # a channel may be constant
    scale = torch.maximum(over.std(0, correction=0), least * x.square().mean().sqrt()).clamp(min=1e-12)
    start = [norm.scalars[name] for name in names if name != "alpha"]
    starts = [start]
    bounds: list[tuple[float | None, float | None]] = [(None, None)] * len(start)
    if "alpha" in names:
        steepness = torch.logspace(math.log10(FLATTEST), math.log10(STEEPEST), 13, dtype=torch.float64)
        starts = [[math.log(one), *start] for one in steepness.tolist()]
        bounds = [(starts[0][0], None), *bounds]
    point = min(starts, key=lambda one: fit(one)[2])
    if point:
        simplex = [point, *([value + 0.2 * (i == j) for j, value in enumerate(point)] for i in range(len(point)))]
        exact = {"initial_simplex": simplex, "xatol": 1e-6, "fatol": 1e-12 * y.square().sum().item()}
        found = minimize(lambda one: fit(one)[2], point, method="Nelder-Mead", bounds=bounds, options=exact)
        point = found.x.tolist()
    weight, bias, rest = fit(point)
    for name in names:
        getattr(norm, name).copy_(getattr(bare, name))
    for parameter, vector in (norm.weight, weight), (norm.bias, bias):
        if parameter is not None:
            parameter.copy_(vector)
    return math.sqrt(rest / max(y.square().sum().item(), 1e-300))


def rows(x: Tensor) -> Tensor:
    """Returns up to ROWS tokens of (..., dim) as (N, dim), for every tensor of the same shape the same ones."""
    tokens = x.detach().flatten(0, -2)
    if len(tokens) <= ROWS:
        return tokens
    chosen = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[
        :ROWS
    ]  # a stride might hit columns
    return tokens[chosen.to(tokens.device)]


def _regression(t: Tensor, y: Tensor, weighted: bool, biased: bool) -> tuple[Tensor, Tensor, float]:
    """Returns weight and bias (dim,) that bring weight * t + bias nearest to y, and the sum of squares that is left."""
    mean_t, mean_y = (t.mean(0), y.mean(0)) if biased else (t.new_zeros(t.shape[1]), y.new_zeros(y.shape[1]))
    t, y = t - mean_t, y - mean_y
    squares = t.square().sum(0)
    flat = squares <= FLAT * squares.mean()
    weight = torch.where(flat, 1.0, (t * y).sum(0) / squares) if weighted else torch.ones_like(squares)
    return weight, mean_y - weight * mean_t, (weight * t - y).square().sum().item()
