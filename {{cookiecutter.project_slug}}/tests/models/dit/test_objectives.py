"""The objectives' losses against formulas in float64."""

import sys
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from {{cookiecutter.package_name}}.models.dit.objectives import DDPM, Flow, build
from {{cookiecutter.package_name}}.models.dit.sampling import draw_noise

BETA = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
KEPT = (1 - BETA).cumprod(0)  # share of the data's variance in x_s
STEPS = torch.tensor([0, 1, 2, 10, 100, 500, 998, 999])


class Constant:
    """A model that returns one answer and keeps its input."""

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.x, self.t = x, t
        return self.answer


def test_the_flow_loss_is_the_velocitys_squared_error() -> None:
    _, (x, noise, out) = draw_noise(range(3), (4, 2, 2, 2))
    t = torch.tensor([0.0, 0.25, 0.5, 0.9])
    times = t[:, None, None, None]
    model = Constant(out)
    losses = Flow().loss(model, x, t, noise)
    torch.testing.assert_close(model.x, noise + times * (x - noise))
    torch.testing.assert_close(losses, (out - (x - noise)).square().mean((1, 2, 3)))
    weighted = Flow(prediction="data").loss(model, x, t, noise)
    torch.testing.assert_close(weighted, ((out - x) / (1 - times)).square().mean((1, 2, 3)))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.8, 0.8)])
def test_logit_normal_times_have_their_quantiles(mean: float, std: float) -> None:
    objective = Flow(time="logit_normal", time_mean=mean, time_std=std)
    quantiles = objective.times(torch.tensor([0.5, 0.841345, 0.158655, 0.977250]))
    expected = torch.tensor([mean, mean + std, mean - std, mean + 2 * std]).sigmoid()
    torch.testing.assert_close(quantiles, expected, atol=1e-4, rtol=0)
    ends = objective.times(torch.tensor([0.0, 1.0]))
    assert (ends > 0).all()
    assert (ends < 1).all()


def test_ddpm_adds_noise_as_diffusers_does() -> None:
    _, (x, noise) = draw_noise([3, 4], (len(STEPS), 3, 2, 2))
    noisy = DDPM().q_sample(x, STEPS / 1000, noise)
    kept = KEPT[STEPS][:, None, None, None]
    torch.testing.assert_close(noisy, (kept.sqrt() * x + (1 - kept).sqrt() * noise).float())
    scheduler: Any = DDPMScheduler()  # its defaults are the paper's schedule
    torch.testing.assert_close(noisy, scheduler.add_noise(x, noise, STEPS), atol=1e-4, rtol=1e-4)


def posterior(x: Tensor, x_s: Tensor, step: int) -> Normal:
    """q(x_s-1 | x_s, x) by Bayes: a product of two normal densities of x_s-1, of which precisions add up."""
    from_data, from_next = 1 / (1 - KEPT[step - 1]), (1 - BETA[step]) / BETA[step]
    precision = from_data + from_next
    mean = (KEPT[step - 1].sqrt() * x * from_data + (1 - BETA[step]).sqrt() * x_s / BETA[step]) / precision
    return Normal(mean, precision.rsqrt().expand_as(mean))


def bound(x: Tensor, noise: Tensor, predicted: Tensor, v: Tensor, step: int) -> Tensor:
    """In bits, float64: the term of the variational bound of one step."""
    x_s = KEPT[step].sqrt() * x + (1 - KEPT[step]).sqrt() * noise
    guess = (x_s - (1 - KEPT[step]).sqrt() * predicted) / KEPT[step].sqrt()
    low = posterior(x, x_s, max(step, 1)).variance.log()
    std = (low + (v + 1) / 2 * (BETA[step].log() - low)).exp().sqrt()
    if step:
        nats = kl_divergence(posterior(x, x_s, step), Normal(posterior(guess, x_s, step).mean, std))
    else:
        above, below = (Normal(guess, std).cdf(x + sign / 255) for sign in (1, -1))
        share = torch.where(x > 0.999, 1 - below, torch.where(x < -0.999, above, above - below))
        nats = -share.log()
    return nats / torch.log(torch.tensor(2.0))


def test_the_ddpm_loss_is_squared_error_and_bound() -> None:
    """Of x on the 256 levels, the outermost included."""
    _, (x, noise, off, v) = draw_noise(range(4), (len(STEPS), 2, 4, 4))
    x = (x.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1
    predicted, v = noise + 0.3 * off, v.clamp(-1, 1)
    model = Constant(torch.cat((predicted, v), dim=1))
    losses = DDPM().loss(model, x, STEPS / 1000, noise)
    for row, step in enumerate(STEPS.tolist()):
        data, added, guess, spread = (part[row].double() for part in (x, noise, predicted, v))
        expected = (guess - added).square().mean() + bound(data, added, guess, spread, step).mean()
        assert losses[row].item() == pytest.approx(expected.item(), rel=1e-3)


def test_losses_are_finite_and_fp32_for_the_worst_prediction() -> None:
    x = torch.full((len(STEPS), 2, 1, 1), 4.0)
    x[:, 1] = -0.5
    for objective in (Flow(), Flow(prediction="data"), DDPM()):
        out = torch.full((len(STEPS), 2 * objective.outputs, 1, 1), -30.0)
        out[:, 2:] = -1
        losses = objective.loss(Constant(out.bfloat16()), x, STEPS / 1000, torch.zeros_like(x))
        assert losses.dtype == torch.float32
        assert losses.isfinite().all()


def test_the_bound_trains_the_variance_alone() -> None:
    _, (x, noise, out, v) = draw_noise(range(4), (len(STEPS), 2, 4, 4))
    predicted, v = out.requires_grad_(), v.clamp(-1, 1).requires_grad_()
    loss = DDPM().loss(Constant(torch.cat((predicted, v), dim=1)), x, STEPS / 1000, noise).sum()
    by_prediction, by_v = torch.autograd.grad(loss, (predicted, v))
    torch.testing.assert_close(by_prediction, 2 * (predicted - noise).detach() / noise[0].numel())
    assert (by_v[STEPS > 0] != 0).all()


def test_ddpm_without_diffusers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match="diffusers"):
        build("ddpm", 2)
