"""DyT, Derf and other point-wise norms as modules: where their scalars start, and that nothing rounds them."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from {{cookiecutter.package_name}}.norms import PointwiseNorm, make_norm, names

DIM = 8
MADE = {name: make_norm(name, DIM, device="meta") for name in names()}
SCALARS = {name: list(norm.scalars) for name, norm in MADE.items() if isinstance(norm, PointwiseNorm)}

each_pointwise = pytest.mark.parametrize("name", SCALARS)
dyt_and_derf = pytest.mark.parametrize("name", ["dyt", "derf"])
each_low = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def build(name: str, **options: Any) -> Any:
    return make_norm(name, DIM, **options)


def tokens(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0)) + 1).to(dtype)


def randomize_(norm: Any) -> Any:
    for parameter in norm.parameters():
        parameter.data = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    return norm


@dyt_and_derf
def test_module_is_its_formula(name):
    norm, x = build(name, alpha0=0.7, **({"shift0": -0.2} if name == "derf" else {})), tokens(4, DIM)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    f = torch.tanh(0.7 * x.double()) if name == "dyt" else torch.erf(0.7 * x.double() - 0.2)
    torch.testing.assert_close(norm(x).double(), norm.weight.double() * f + norm.bias.double(), rtol=1e-5, atol=1e-6)


@each_pointwise
@each_low
def test_scalars_stay_fp32_and_unrounded_when_the_net_is_cast(name, dtype):
    norm = randomize_(build(name))
    norm(tokens(4, DIM)).sum().backward()
    before = {scalar: getattr(norm, scalar).detach().clone() for scalar in SCALARS[name]}
    gradients = {scalar: getattr(norm, scalar).grad.clone() for scalar in SCALARS[name]}
    net = nn.Sequential(norm)
    for cast in (net.to, net.type, partial(net.to, "cpu")):
        cast(dtype)
        assert norm.weight.dtype == norm.weight.grad.dtype == dtype
        for scalar in SCALARS[name]:
            parameter = getattr(norm, scalar)
            assert parameter.dtype == parameter.grad.dtype == torch.float32
            assert torch.equal(parameter, before[scalar])
            assert torch.equal(parameter.grad, gradients[scalar])
            assert torch.equal(getattr(copy.deepcopy(norm).to(dtype), scalar), before[scalar])
    net.double()
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float64}
    net.float()
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert all(parameter.is_meta for parameter in net.to("meta", dtype).parameters())


@each_pointwise
def test_scalars_are_fp32_under_another_default_dtype(name):
    torch.set_default_dtype(torch.bfloat16)
    try:
        norm = build(name)
    finally:
        torch.set_default_dtype(torch.float32)
    assert norm.weight.dtype == torch.bfloat16
    assert all(getattr(norm, scalar).dtype == torch.float32 for scalar in SCALARS[name])


@each_pointwise
def test_a_cast_net_learns_from_small_steps(name):
    norm = randomize_(build(name)).to(torch.bfloat16)
    scalars = [getattr(norm, scalar) for scalar in SCALARS[name]]
    starts = [scalar.item() for scalar in scalars]
    optimizer = torch.optim.SGD(scalars, lr=1e-4)
    for _ in range(10):
        for scalar in scalars:
            scalar.grad = torch.ones_like(scalar)
        optimizer.step()
    assert [scalar.item() for scalar in scalars] == pytest.approx([start - 10 * 1e-4 for start in starts], abs=1e-6)


@dyt_and_derf
def test_alpha_starts_by_site(name):
    layer: Any = partial(make_norm, name, alpha0=0.8, alpha0_by_site={"ffn": 0.2, "final": None})
    starts = {site: layer(DIM, site=site).alpha.item() for site in (None, "attn", "ffn", "final")}
    assert starts == pytest.approx({None: 0.8, "attn": 0.8, "ffn": 0.2, "final": 0.8})


@dyt_and_derf
def test_twice_the_weight_at_half_of_alpha_is_the_same_slope_and_saturates_later(name):
    one, two = build(name, alpha0=0.8), build(name, alpha0=0.4, weight0=2.0)
    flat, steep = torch.full((1, DIM), 1e-3), torch.full((1, DIM), 100.0)
    torch.testing.assert_close(two(flat), one(flat), rtol=1e-5, atol=0)
    torch.testing.assert_close(two(steep), 2 * one(steep))
    nn.init.zeros_(two.weight)
    two.reset_parameters()
    assert (two.weight == 2).all()


class Cube(PointwiseNorm):
    steepness: nn.Parameter

    def __init__(self, dim: int, steepness0: float = 0.5, **common: Any) -> None:
        super().__init__(dim, steepness=steepness0, **common)

    def curve(self, x: Tensor) -> Tensor:
        return (self.steepness * x) ** 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_subclass_writes_the_curve_alone(dtype):
    x = tokens(4, DIM, dtype=dtype)
    for norm in Cube(DIM, site="ffn"), Cube(DIM, bias=False), Cube(DIM, affine=False):
        expected = (randomize_(norm).steepness.double() * x.double()) ** 3
        expected = expected * (1.0 if norm.weight is None else norm.weight.double())
        expected = expected + (0.0 if norm.bias is None else norm.bias.double())
        y = norm(x)
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), expected, rtol=torch.finfo(dtype).eps + 1e-6, atol=1e-6)
