"""Alphas that start from the scale of their inputs."""

import pytest
import torch
from torch import Tensor, nn

from {{cookiecutter.package_name}}.norms import alpha_from_data_, make_norm

from .common import DIM


def rms(x: Tensor) -> Tensor:
    return x.double().square().mean().sqrt()


class Scaled(nn.Module):
    """Two norms; the second reads what the first one makes of an input that is far from std 1."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.first, self.second = make_norm(name, DIM, alpha0=0.7), make_norm(name, DIM, alpha0=0.2)

    def forward(self, x: Tensor) -> Tensor:
        self.middle = 30 * self.first(x)
        return self.second(self.middle)


@pytest.mark.parametrize("name", ["dyt", "derf", "hardtanh"])
def test_alpha0_is_the_rms_of_alpha_times_x_for_every_norm(name: str) -> None:
    model, x = Scaled(name), 17 * torch.randn(64, 5, DIM)
    found = alpha_from_data_(model, (x,))
    model(x)
    first, second = model.get_parameter("first.alpha"), model.get_parameter("second.alpha")
    assert rms(first * x).item() == pytest.approx(0.7, rel=1e-5)
    assert rms(second * model.middle).item() == pytest.approx(0.2, rel=1e-5)
    assert found == pytest.approx({"first": first.item(), "second": second.item()})


def test_dyisru_starts_with_the_slope_of_rmsnorm() -> None:
    norm, x = nn.Sequential(make_norm("dyisru", 4096, alpha0=1.0)), 5 * torch.randn(8, 4096)
    alpha_from_data_(norm, (x,))
    torch.testing.assert_close(norm(x), make_norm("rmsnorm", 4096)(x), rtol=0.05, atol=0.0)


def test_one_alpha_for_each_channel_takes_the_scale_of_its_channel() -> None:
    scales = torch.arange(1.0, DIM + 1)
    model = nn.Sequential(make_norm("dyt", DIM, alpha0=0.5, alpha_per="channel"))
    alpha_from_data_(model, (scales * torch.randn(4000, DIM),))
    torch.testing.assert_close(model.get_parameter("0.alpha").data, 0.5 / scales, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Sequential(nn.LayerNorm(DIM)), torch.ones(2, DIM)),
        (nn.Sequential(make_norm("dyt", DIM, alpha_per="none")), torch.ones(2, DIM)),
        (nn.Sequential(make_norm("dyt", DIM)), torch.zeros(2, DIM)),
        (nn.Sequential(make_norm("dyt", DIM)), torch.full((2, DIM), torch.nan)),
    ],
    ids=["no alpha", "none of its own", "zeros", "nan"],
)
def test_refusals(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(ValueError, match="alpha"):
        alpha_from_data_(model, (x,))
