"""DyT, Derf and other point-wise norms as modules: where their scalars start, and that nothing rounds them."""

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from {{cookiecutter.package_name}}.norms import PointwiseNorm, make_norm, names
from {{cookiecutter.package_name}}.norms.registry import options_of

from .common import DIM, build, randomize_, tokens

MADE = {name: make_norm(name, DIM, device="meta") for name in names()}
SCALARS = {name: list(norm.scalars) for name, norm in MADE.items() if isinstance(norm, PointwiseNorm)}

each_pointwise = pytest.mark.parametrize("name", SCALARS)
dyt_and_derf = pytest.mark.parametrize("name", ["dyt", "derf"])


@dyt_and_derf
def test_module_is_its_formula(name):
    norm, x = build(name, alpha0=0.7, **({"shift0": -0.2} if name == "derf" else {})), tokens(4, DIM)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    f = torch.tanh(0.7 * x.double()) if name == "dyt" else torch.erf(0.7 * x.double() - 0.2)
    torch.testing.assert_close(norm(x).double(), norm.weight.double() * f + norm.bias.double(), rtol=1e-5, atol=1e-6)


@each_pointwise
def test_scalars_are_fp32_under_another_default_dtype(name):
    torch.set_default_dtype(torch.bfloat16)
    try:
        norm = build(name)
    finally:
        torch.set_default_dtype(torch.float32)
    assert norm.weight.dtype == torch.bfloat16
    assert all(getattr(norm, scalar).dtype == torch.float32 for scalar in SCALARS[name])


@dyt_and_derf
def test_alpha_starts_by_site(name):
    layer: Any = partial(make_norm, name, alpha0=0.8, alpha0_by_site={"ffn": 0.2, "final": None})
    starts = {site: layer(DIM, site=site).alpha.item() for site in (None, "attn", "ffn", "final")}
    assert starts == pytest.approx({None: 0.8, "attn": 0.8, "ffn": 0.2, "final": 0.8})


def test_dyisru_is_its_formula():
    """Also without a weight, as a DiT's norms are."""
    x = tokens(4, DIM).double()
    for affine in True, False:
        norm = make_norm("dyisru", DIM, alpha0=0.5, affine=affine)
        beta = DIM / 0.5**2
        torch.testing.assert_close(norm(x), (DIM**0.5 * x / (beta + x**2).sqrt()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SCALARS if "alpha_per" in options_of(name)])
def test_alpha_for_each_channel_and_none_at_all(name):
    x = tokens(4, DIM)
    one, each, none = (build(name, alpha_per=per) for per in ("layer", "channel", "none"))
    assert each.alpha.shape == (DIM,)
    assert torch.equal(each.alpha, one.alpha.expand(DIM))
    torch.testing.assert_close(each(x), one(x))
    assert "alpha" not in dict(none.named_parameters())
    nn.init.ones_(one.alpha)
    torch.testing.assert_close(none(x), one(x))
    assert torch.equal(each.to(torch.bfloat16).alpha, torch.full((DIM,), each.scalars["alpha"]))
    with pytest.raises(ValueError, match="alpha_per"):
        build(name, alpha_per="head")


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


@each_pointwise
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scalars_stay_fp32_and_unrounded_when_the_model_is_cast(name, dtype):
    norm = randomize_(build(name))
    norm(tokens(4, DIM)).sum().backward()
    before = {scalar: getattr(norm, scalar).detach().clone() for scalar in SCALARS[name]}
    gradients = {scalar: getattr(norm, scalar).grad.clone() for scalar in SCALARS[name]}
    model = nn.Sequential(norm)
    for cast in (model.to, model.type, partial(model.to, "cpu")):
        cast(dtype)
        assert norm.weight.dtype == norm.weight.grad.dtype == dtype
        for scalar in SCALARS[name]:
            parameter = getattr(copy.deepcopy(norm), scalar)
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, before[scalar])
            assert torch.equal(getattr(norm, scalar).grad, gradients[scalar])
    assert {parameter.dtype for parameter in model.double().parameters()} == {torch.float64}
    assert all(parameter.is_meta for parameter in model.to("meta", dtype).parameters())


@dyt_and_derf
def test_weights_start_at_weight0(name):
    norm = build(name, weight0=2.0)
    nn.init.zeros_(norm.weight)
    norm.reset_parameters()
    assert (norm.weight == 2).all()


@pytest.mark.parametrize("alpha_per", ["layer", "channel", "none"])
@pytest.mark.parametrize("name", ["dyt", "derf", "arctan"])
def test_a_running_scale_follows_training_and_stays_in_evaluation(name: str, alpha_per: str) -> None:
    norm: Any = make_norm(name, DIM, alpha_per=alpha_per, running_scale=True)
    plain: Any = make_norm(name, DIM, alpha_per="channel" if alpha_per == "channel" else "layer")
    first, second = tokens(6, DIM), 3 * tokens(6, DIM)
    square = first.square().mean()
    for x, expected in (first, square), (second, 0.99 * square + 0.01 * second.square().mean()):
        alpha = 1.0 if norm.alpha is None else norm.alpha.detach()
        plain.alpha.data = (alpha * torch.ones_like(plain.alpha)) / expected.sqrt()
        torch.testing.assert_close(norm(x), plain(x))
    norm.eval()
    torch.testing.assert_close(norm(100 * first), plain(100 * first))
    assert norm.to(torch.bfloat16).running_square.dtype == torch.float32


def test_no_gradient_goes_through_a_running_scale() -> None:
    """alpha's gradient is that of alpha over a constant."""
    norm: Any = make_norm("dyt", DIM, running_scale=True)
    x = tokens(6, DIM).requires_grad_()
    scale = x.detach().square().mean().sqrt()
    expected = torch.autograd.grad(torch.tanh(norm.alpha / scale * x).square().sum(), (x, norm.alpha))
    torch.testing.assert_close(torch.autograd.grad(norm(x).square().sum(), (x, norm.alpha)), expected)
