"""Initial scales that do not depend on width."""

import pytest
import torch
from torch import nn

from {{cookiecutter.package_name}}.models.init import fan_in_


@pytest.mark.parametrize("width", [64, 1024])
def test_a_layer_keeps_the_scale_of_its_input(width: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(width, 512)
    fan_in_(layer, residual_projections=[], depth=1)
    assert layer(torch.randn(256, width)).std().item() == pytest.approx(1.0, rel=0.05)


def test_the_stream_grows_by_sqrt_two_whatever_the_depth() -> None:
    torch.manual_seed(0)
    for depth in (2, 32):
        branches = nn.ModuleList(nn.Linear(256, 256) for _ in range(2 * depth))
        fan_in_(branches, residual_projections=branches, depth=depth)
        stream = torch.randn(512, 256)
        for branch in branches:
            stream = stream + branch(torch.randn(512, 256))  # each branch reads what a norm would give it
        assert stream.std().item() == pytest.approx(2**0.5, rel=0.05)


def test_head_gain_and_biases() -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"conv": nn.Conv2d(3, 64, 4), "head": nn.Linear(1024, 256)})
    fan_in_(net, residual_projections=[], depth=1, head=net["head"], head_gain=2.0)
    assert net["head"].weight.std().item() == pytest.approx(2 * 1024**-0.5, rel=0.05)
    assert net["conv"].weight.std().item() == pytest.approx((3 * 4 * 4) ** -0.5, rel=0.1)
    assert not any(layer.bias.any() for layer in net.values())
