"""Point-wise norms fitted to others, against scipy's least squares and against norms whose parameters are known."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import least_squares
from scipy.special import erf
from torch import Tensor

from {{cookiecutter.package_name}}.norms import PointwiseNorm, make_norm
from {{cookiecutter.package_name}}.norms.calibrate import FLATTEST, ROWS, calibrate_, rows

CURVES = {"dyt": np.tanh, "derf": erf, "isru": lambda u: u / np.sqrt(1 + u * u)}
SHAPES = [{"affine": True, "bias": True}, {"affine": True, "bias": False}, {"affine": False}]


def made(name: str, dim: int, **shape: Any) -> PointwiseNorm:
    norm = make_norm(name, dim, **shape)
    assert isinstance(norm, PointwiseNorm)
    return norm


def stream(number: int = 400, dim: int = 5, scale: float = 1.7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    widths = torch.linspace(0.5, 2.0, dim)
    return scale * widths * torch.randn(number, dim, generator=generator) + 0.3


def layer_norm(x: Tensor) -> Tensor:
    """LayerNorm with a weight and a bias that differ from channel to channel."""
    dim = x.shape[-1]
    return F.layer_norm(x, (dim,), torch.linspace(0.4, 1.6, dim), torch.linspace(-1, 1, dim))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CURVES)
def test_a_norm_of_the_same_kind_is_found_again(name: str, shape: dict[str, Any]) -> None:
    known, fitted = made(name, 5, **shape), made(name, 5, **shape)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in known.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=generator) - 0.3)
    x = stream()
    assert calibrate_(fitted, x, known(x).detach()) < 1e-5
    for key, parameter in known.named_parameters():
        torch.testing.assert_close(fitted.get_parameter(key), parameter, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CURVES)
def test_no_parameters_are_better(name: str, shape: dict[str, Any]) -> None:
    """scipy, which searches all parameters at once, from where ours ended and from the norm's own start."""
    x = stream(60, 3)
    y = layer_norm(x)
    norm = made(name, 3, **shape)
    names = [key for key, _ in norm.named_parameters()]
    start = torch.cat([parameter.detach() for parameter in norm.parameters()]).numpy()
    left = calibrate_(norm, x, y)

    def misses(values: np.ndarray) -> np.ndarray:
        sizes = [parameter.numel() for parameter in norm.parameters()]
        given = dict(zip(names, np.split(values, np.cumsum(sizes)[:-1]), strict=True))
        curve = CURVES[name](given["alpha"] * x.double().numpy() + given.get("shift", 0.0))
        return (given.get("weight", 1.0) * curve + given.get("bias", 0.0) - y.double().numpy()).ravel()

    ours = torch.cat([parameter.detach() for parameter in norm.parameters()]).double().numpy()
    squares = float(np.square(misses(ours)).sum())
    for begin in (ours, start):
        theirs = 2 * least_squares(misses, begin, xtol=1e-14, ftol=1e-14, gtol=1e-14).cost
        assert squares <= theirs * (1 + 1e-5)
    assert left == pytest.approx((squares / y.double().square().sum().item()) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("name", CURVES)
def test_alphas_of_channels_follow_their_scale(name: str) -> None:
    """And fit at least as well as one alpha for channels whose scales differ by 100."""
    x = stream() * torch.logspace(-1, 1, 5)
    y = layer_norm(x / x.std(0))
    one, each = made(name, 5), made(name, 5, alpha_per="channel")
    left = calibrate_(each, x, y)
    assert isinstance(each.alpha, Tensor)
    scaled = each.alpha * x.std(0, correction=0)
    torch.testing.assert_close(scaled[2:], scaled[4].expand(3), rtol=1e-4, atol=0)
    assert left < calibrate_(one, x, y)
    bare = made(name, 5, alpha_per="none")
    assert calibrate_(bare, x, y) < 1


def test_a_large_cloud_is_thinned_alike() -> None:
    numbers = torch.arange(3.0 * ROWS)
    x, y = numbers[:, None].expand(-1, 2), -numbers.reshape(3, ROWS, 1).expand(-1, -1, 6)
    few = rows(x)
    assert few.shape == (ROWS, 2)
    assert torch.equal(few[:, :1], -rows(y)[:, :1])
    assert len(few[:, 0].unique()) == ROWS
    assert few[:, 0].mean() == pytest.approx(1.5 * ROWS, rel=0.05)


def test_a_channel_that_never_changes_and_dtypes() -> None:
    """Such a channel says nothing of its weight, which must stay a sane number."""
    x = stream()
    x[:, 2] = 40.0  # so large that the curve is at its bound
    y = layer_norm(x)
    norm = made("dyt", 5, dtype=torch.bfloat16)
    calibrate_(norm, x, y)
    wide, narrow = torch.float32, torch.bfloat16
    assert [parameter.dtype for parameter in norm.parameters()] == [wide, narrow, narrow]
    assert norm.weight is not None
    assert norm.weight.abs().max() < 20
    torch.testing.assert_close(norm(x)[:, 2].mean(), y[:, 2].mean(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", CURVES)
def test_a_nearly_linear_norm_leaves_alpha_and_weight_of_ordinary_size(name: str) -> None:
    x = stream()
    norm = made(name, 5)
    assert calibrate_(norm, x, 0.5 * x + 0.1) < 0.01
    assert isinstance(norm.alpha, Tensor)
    assert norm.alpha.item() * x.std().item() >= FLATTEST * 0.99


@pytest.mark.parametrize("which", [0, 1])
def test_numbers_that_are_not_finite_are_refused(which: int) -> None:
    pair = stream(), layer_norm(stream())
    pair[which][3, 2] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        calibrate_(made("dyt", 5), *pair)
