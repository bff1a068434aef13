"""Clouds of input and output, and what is fitted to them, against formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from {{cookiecutter.package_name}}.callbacks import norm_curves
from {{cookiecutter.package_name}}.callbacks.norm_curves import Cloud, chosen_layers, clouds, fit
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.norms import make_norm

from ..runs import Start


def cloud(x: torch.Tensor, y: torch.Tensor) -> Cloud:
    order = x.argsort()
    return Cloud(x[order].numpy(), y[order].numpy(), np.zeros(len(x)))


def randomized(name: str, dim: int) -> nn.Module:
    norm = make_norm(name, dim)
    for key, parameter in norm.named_parameters():
        if key.endswith(("weight", "bias")):
            nn.init.uniform_(parameter, 0.5, 2.0)
    return norm


@pytest.mark.parametrize(("weight", "alpha", "bias"), [(1.7, 0.6, 0.3), (-0.4, 3.0, -1.0), (5.0, 0.05, 0.0)])
def test_the_fit_recovers_a_tanh(weight: float, alpha: float, bias: float) -> None:
    x = 3 * torch.randn(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = fit(cloud(x, weight * torch.tanh(alpha * x) + bias))
    assert (found.weight, found.alpha, found.bias) == pytest.approx((weight, alpha, bias), rel=1e-4, abs=1e-4)
    assert found.r2 == pytest.approx(1.0)
    assert found(np.array([2.0])) == pytest.approx(weight * np.tanh(alpha * 2) + bias, rel=1e-4)


def test_the_fit_is_the_least_squares_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(3000, dtype=torch.float64, generator=generator)
    y = torch.tanh(x) + 0.3 * torch.randn(3000, dtype=torch.float64, generator=generator)
    found = fit(cloud(x, y))

    def residuals(weight: float, alpha: float, bias: float) -> float:
        return (weight * torch.tanh(alpha * x) + bias - y).square().sum().item()

    best = residuals(found.weight, found.alpha, found.bias)
    for step in (-0.01, 0.01):
        assert residuals(found.weight + step, found.alpha, found.bias) > best
        assert residuals(found.weight, found.alpha + step, found.bias) > best
        assert residuals(found.weight, found.alpha, found.bias + step) > best
    total = (y - y.mean()).square().sum().item()
    assert found.r2 == pytest.approx(1 - best / total)
    assert found.r2_line == pytest.approx(torch.corrcoef(torch.stack([x, y]))[0, 1].item() ** 2)
    assert found.r2_line < found.r2


def test_a_straight_line_and_a_constant() -> None:
    x = torch.linspace(-2, 2, 100, dtype=torch.float64)
    straight, constant = fit(cloud(x, 3 * x + 1)), fit(cloud(x, torch.full_like(x, 2.0)))
    assert straight.r2_line == pytest.approx(1.0)
    assert straight.r2 == pytest.approx(1.0, abs=1e-3)
    assert constant(x.numpy()) == pytest.approx(np.full(100, 2.0))


def test_inputs_far_from_zero_are_no_constant() -> None:
    """Under most alphas they are all at tanh's bound, which explains nothing."""
    x = 50 + 3 * torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = fit(cloud(x, torch.tanh(x - 50)))
    assert found.r2 == pytest.approx(found.r2_line, rel=0.05)
    assert 0.5 < found.r2_line < 1


def test_layer_norm_is_seen_before_its_weight_and_bias() -> None:
    norm = randomized("ln", 6)
    x = torch.randn(2, 5, 6) * torch.rand(2, 5, 1) + 1
    seen = clouds(nn.Sequential(norm), [x], ["0"])["0"]
    expected = F.layer_norm(x.double(), (6,), eps=1e-6).flatten()
    order = x.flatten().argsort(stable=True)
    assert seen.x == pytest.approx(x.flatten()[order].double().numpy())
    assert seen.y == pytest.approx(expected[order].numpy(), abs=1e-5)
    assert seen.channel == pytest.approx((order % 6 / 6).numpy())
    assert seen.alpha is None
    assert seen.curve is None


@pytest.mark.parametrize("name", ["dyt", "derf"])
def test_a_point_wise_norm_shows_its_own_curve(name: str) -> None:
    norm = randomized(name, 6)
    for scalar in norm.scalars:
        nn.init.constant_(getattr(norm, scalar), 0.8)
    x = 3 * torch.randn(2, 5, 6)
    seen = clouds(nn.Sequential(norm), [x], ["0"])["0"]
    f = np.vectorize(lambda x: np.tanh(0.8 * x) if name == "dyt" else torch.erf(torch.tensor(0.8 * x + 0.8)).item())
    assert seen.y == pytest.approx(f(seen.x), abs=1e-5)
    assert seen.curve is not None
    assert seen.curve == pytest.approx(f(np.linspace(seen.x[0], seen.x[-1], len(seen.curve))), abs=1e-5)
    assert seen.alpha == pytest.approx(0.8)
    inner = 0.8 * seen.x + (0.8 if name == "derf" else 0.0)
    assert seen.saturated == pytest.approx(np.mean(np.abs(inner) > 2))


def test_the_curve_is_exact_where_training_has_16_bits() -> None:
    """Lightning makes them the default dtype under bf16-true."""
    x = 3 * torch.randn(2, 5, 6)
    net = nn.Sequential(make_norm("dyt", 6))
    torch.set_default_dtype(torch.bfloat16)
    try:
        seen = clouds(net, [x], ["0"])["0"]
    finally:
        torch.set_default_dtype(torch.float32)
    assert seen.curve == pytest.approx(np.tanh(0.5 * np.linspace(seen.x[0], seen.x[-1], 400)), abs=1e-5)


def test_batch_norm_by_its_running_statistics() -> None:
    norm = randomized("bn", 4)
    norm.bn.running_mean.uniform_(-1, 1)
    norm.bn.running_var.uniform_(0.5, 2)
    before = {key: tensor.clone() for key, tensor in norm.state_dict().items()}
    x = torch.randn(3, 5, 4)
    seen = clouds(nn.Sequential(norm).train(), [x], ["0"])["0"]
    expected = (x - before["bn.running_mean"]) / (before["bn.running_var"] + 1e-5).sqrt()
    assert sorted(seen.y) == pytest.approx(expected.flatten().sort().values.numpy(), abs=1e-5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in norm.state_dict().items())


def test_a_large_cloud_keeps_its_extremes_and_all_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_curves, "POINTS", 64)
    x = torch.randn(16, 16, 64, generator=torch.Generator().manual_seed(0))  # 64 divides it: a stride would see one
    y = F.layer_norm(x, (64,))
    seen = clouds(nn.Sequential(make_norm("ln", 64)), [x], ["0"])["0"]
    assert 60 < len(seen.x) <= 68
    ends = [end for one in (x, y) for end in (one.min().item(), one.max().item())]
    assert [seen.x[0], seen.x[-1], seen.y.min(), seen.y.max()] == pytest.approx(ends, rel=1e-5)
    assert len(set(seen.channel)) > 30


def test_what_has_diverged_has_no_cloud() -> None:
    assert clouds(nn.Sequential(make_norm("ln", 4)), [torch.full((2, 4), float("nan"))], ["0"]) == {}


def test_layers_by_words_numbers_and_names() -> None:
    layers = ["a.norm1", "a.norm2", "b.norm1", "b.norm2", "norm"]
    assert chosen_layers("first,middle,last", layers) == ["a.norm1", "b.norm1", "norm"]
    assert chosen_layers(" last, 0,norm,01_a.norm2", layers) == ["a.norm1", "a.norm2", "norm"]
    assert chosen_layers("first,middle,last", ["norm"]) == ["norm"]
    assert chosen_layers("", layers) == chosen_layers("first", []) == []
    with pytest.raises(UsageError, match=r"monitor\.curves=a\.norn1: no such norm \(did you mean a\.norm1\?\); first"):
        chosen_layers("a.norn1", layers)
    with pytest.raises(UsageError, match=r"monitor\.curves=5: no such norm; first, middle, last, 0 to 4, or a name"):
        chosen_layers("5", layers)


def test_a_layer_that_is_not_there_is_refused_before_a_run_is_made(start: Start) -> None:
    with pytest.raises(UsageError, match=r"monitor\.curves=nothing: no such norm"):
        start("monitor.curves=nothing")
