"""Point-wise norms that start where another norm's input and output say: least squares on a cloud of both."""

import copy
import math

import torch
from torch import Tensor

from .pointwise import PointwiseNorm

STEEPNESS = [10 ** (power / 4) for power in range(-8, 7)]  # alpha times the std of x where the search looks first
FLAT = 1e-6  # a channel whose curve varies less, beside the average channel's, has nothing to fit a weight to
ROWS = 4096  # of a cloud: two numbers a channel need no more


@torch.no_grad()
def calibrate_(norm: PointwiseNorm, x: Tensor, y: Tensor) -> float:
    """Sets the parameters of `norm` in place so that norm(x) comes as near to y as it can, in the mean of squares.

    Under given scalars (alpha, and Derf's shift) weight and bias are a linear regression in every channel, so only the
    scalars are searched for (variable projection, Golub and Pereyra 1973), in float64. Without a bias the regression
    goes through the origin; without a weight the scalars do what they can alone.

    Args:
        x, y: (N, dim), what another norm was fed and what it made of it.

    Returns:
        What is left: the norm of norm(x) - y over that of y.
    """
    from scipy.optimize import minimize  # takes a moment to import, for which others need not wait

    device = torch.device("cpu") if x.device.type == "mps" else x.device  # which has no float64
    x, y = x.to(device, torch.float64), y.to(device, torch.float64)
    bare = copy.deepcopy(norm).to(device, torch.float64)  # hooks too, which calling `forward` goes around
    bare.weight = bare.bias = None

    def fitted(place: list[float]) -> tuple[Tensor, Tensor, float]:
        for name, value in _scalars(norm, place).items():
            getattr(bare, name).fill_(value)
        return _regression(bare.forward(x), y, norm.weight is not None, norm.bias is not None)

    steepness = x.square().mean().sqrt().clamp(min=1e-12).item()
    start = [float(value) for name, value in norm.scalars.items() if name != "alpha"]
    places = [[math.log(one / steepness), *start] for one in STEEPNESS] if "alpha" in norm.scalars else [start]
    place = min(places, key=lambda one: fitted(one)[2])
    if place:
        corners = [place, *([value + 0.2 * (i == j) for j, value in enumerate(place)] for i in range(len(place)))]
        exact = {"initial_simplex": corners, "xatol": 1e-6, "fatol": 1e-12 * y.square().sum().item()}
        place = minimize(lambda one: fitted(one)[2], place, method="Nelder-Mead", options=exact).x.tolist()
    weight, bias, rest = fitted(place)
    for name, value in _scalars(norm, place).items():
        getattr(norm, name).fill_(value)
    for parameter, vector in (norm.weight, weight), (norm.bias, bias):
        if parameter is not None:
            parameter.copy_(vector)
    return math.sqrt(rest / max(y.square().sum().item(), 1e-300))


def rows(x: Tensor) -> Tensor:
    """(N, dim) of an input or output of a norm: up to ROWS of its vectors, the same places of every tensor alike."""
    cloud = x.detach().flatten(0, -2)
    if len(cloud) <= ROWS:
        return cloud
    places = torch.randperm(len(cloud), generator=torch.Generator().manual_seed(0))[:ROWS]  # a stride might hit columns
    return cloud[places.to(cloud.device)]


def _scalars(norm: PointwiseNorm, place: list[float]) -> dict[str, float]:
    """By name, from where the search stands: alpha, which is above 0, on a logarithmic scale and first."""
    names = sorted(norm.scalars, key=lambda name: name != "alpha")
    return {name: math.exp(value) if name == "alpha" else value for name, value in zip(names, place, strict=True)}


def _regression(t: Tensor, y: Tensor, weighted: bool, biased: bool) -> tuple[Tensor, Tensor, float]:
    """Weight and bias (dim,) that make weight * t + bias nearest to y in every channel, and the squares left in all."""
    mean_t, mean_y = (t.mean(0), y.mean(0)) if biased else (t.new_zeros(t.shape[1]), y.new_zeros(y.shape[1]))
    t, y = t - mean_t, y - mean_y
    squares = t.square().sum(0)
    flat = squares <= FLAT * squares.mean()
    weight = torch.where(flat, 1.0, (t * y).sum(0) / squares) if weighted else torch.ones_like(squares)
    return weight, mean_y - weight * mean_t, (weight * t - y).square().sum().item()
