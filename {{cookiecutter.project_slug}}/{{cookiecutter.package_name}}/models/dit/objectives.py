"""Training objectives and their samplers: flow matching, and DDPM as in the DiT paper.

B batch, C channels, O outputs per channel, H x W pixels or latents. Time t runs from 0 to 1, for flow matching from
noise to data, for DDPM from data to noise.
"""

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.special import ndtr

Predict = Callable[[Tensor, Tensor], Tensor]  # (B, C, H, W), times (B,) -> (B, O C, H, W): a model, given the classes
Sources = list[Generator]  # of random numbers, one for each sample


class Objective(Protocol):
    """The interface of an objective."""

    outputs: int  # O
    samplers: tuple[str, ...]  # the first one is the default

    def times(self, uniform: Tensor) -> Tensor:
        """Returns the times (B,) of training for numbers (B,) spread evenly over 0..1."""

    def progress(self, t: float) -> float:
        """Returns how far from noise a time is: 0 for noise, 1 for data."""

    def q_sample(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Returns the model's input at time t: (B, C, H, W)."""

    def loss(self, predict: Predict, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Returns the losses (B,) of x (B, C, H, W), fp32."""

    def denoise(self, predict: Predict, noise: Tensor, steps: int, sampler: str, sources: Sources) -> Iterator[Tensor]:
        """Yields the state (B, C, H, W) after each of `steps` steps from noise; the last one is the sample."""


class Flow:
    """Flow matching: x_t = (1 - t) noise + t x, with velocity x - noise (arXiv 2210.02747, 2209.03003).

    Args:
        prediction: output of the model: "velocity", or "data", from which the velocity follows (arXiv 2511.13720).
        time: distribution of t in training: "uniform", or "logit_normal" (arXiv 2403.03206), more often in the middle.
        time_mean, time_std: of the logit of t; below 0 is nearer to noise.
    """

    outputs = 1
    samplers: tuple[str, ...] = ("heun", "euler")
    MIN_TIME_LEFT = 0.05  # bounds the division by 1 - t of data prediction

    def __init__(
        self, prediction: str = "velocity", time: str = "uniform", time_mean: float = 0.0, time_std: float = 1.0
    ) -> None:
        self.prediction, self.time, self.time_mean, self.time_std = prediction, time, time_mean, time_std

    def times(self, uniform: Tensor) -> Tensor:
        if self.time == "uniform":
            return uniform
        quantiles = 2**0.5 * torch.erfinv(2 * uniform.clamp(1e-6, 1 - 1e-6) - 1)  # of a normal number
        return torch.sigmoid(self.time_mean + self.time_std * quantiles)

    def progress(self, t: float) -> float:
        return t

    def q_sample(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        t = t[:, None, None, None]
        return (1 - t) * noise + t * x

    def loss(self, predict: Predict, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        x_t = self.q_sample(x, t, noise)
        target = x - noise if self.prediction == "velocity" else self.velocity_to(x, x_t, t)
        return (self.velocity(predict, x_t, t) - target).square().flatten(1).mean(1)

    def velocity(self, predict: Predict, x_t: Tensor, t: Tensor) -> Tensor:
        out = predict(x_t, t).float()
        return out if self.prediction == "velocity" else self.velocity_to(out, x_t, t)

    def velocity_to(self, x: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return (x - x_t) / (1 - t).clamp(min=self.MIN_TIME_LEFT)[:, None, None, None]

    def denoise(self, predict: Predict, noise: Tensor, steps: int, sampler: str, sources: Sources) -> Iterator[Tensor]:
        x = noise
        for step in range(steps):
            t, next_t = (_expand(number / steps, x) for number in (step, step + 1))
            slope = self.velocity(predict, x, t)
            if sampler == "heun" and step + 1 < steps:
                slope = (slope + self.velocity(predict, x + slope / steps, next_t)) / 2
            x = x + slope / steps
            yield x


class DDPM:
    """Noise prediction in 1000 steps with a learned variance, as the DiT paper trains (arXiv 2006.11239, 2102.09672).

    beta rises linearly, and t = step / 1000. The loss is the squared error of the noise plus 0.001 times the
    variational bound, in bits, which trains the variance alone. The bound is a sum over 1000 steps and a sample stands
    for all of them, so the term of its own step is added once.

    Raises:
        ValueError: diffusers, which samples, is not installed.
    """

    outputs = 2
    samplers: tuple[str, ...] = ("ddpm", "ddim")
    STEPS = 1000
    HALF_LEVEL = 1 / 255  # of 256 levels from -1 to 1: the likelihood of step 0 is that of images

    def __init__(self) -> None:
        if find_spec("diffusers") is None:
            raise ValueError("ddpm needs the package diffusers: uv sync --extra latents")
        beta = torch.linspace(1e-4, 0.02, self.STEPS, dtype=torch.float64)
        self.alphas_cumprod = (1 - beta).cumprod(0)
        rest = 1 - self.alphas_cumprod
        posterior = beta * (1 - _previous(self.alphas_cumprod)) / rest
        posterior[0] = posterior[1]  # 0 has no logarithm
        error_to_mean = beta / ((1 - beta) * rest).sqrt()
        rows = (self.alphas_cumprod.sqrt(), rest.sqrt(), posterior.log(), beta.log(), error_to_mean)
        self.table = torch.stack(rows).float()  # (5, STEPS)

    def times(self, uniform: Tensor) -> Tensor:
        return (uniform * self.STEPS).floor().clamp(max=self.STEPS - 1) / self.STEPS

    def progress(self, t: float) -> float:
        return 1 - t

    def q_sample(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        signal, std, *_ = self._coefficients(t)
        return signal * x + std * noise

    def loss(self, predict: Predict, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        predicted, v = predict(self.q_sample(x, t, noise), t).float().chunk(2, dim=1)
        error = predicted - noise
        return (error.square() + self.bound(x, t, error.detach(), v)).flatten(1).mean(1)

    def bound(self, x: Tensor, t: Tensor, error: Tensor, v: Tensor) -> Tensor:
        """Returns the terms of the variational bound (B, C, H, W), in bits.

        They are KL(q(x_s-1 | x_s, x) || p(x_s-1 | x_s)), at step 0 -log p(x | x_0). The mean of p is off by what the
        `error` of the noise makes; its variance lies by v, -1 to 1, between q's and beta on a logarithmic scale.
        """
        *_, low, high, error_to_mean = self._coefficients(t)
        log_variance, off = low + (v + 1) / 2 * (high - low), error_to_mean * error
        divergence = (low - log_variance).exp() - 1 - (low - log_variance) + off.square() * (-log_variance).exp()
        per_std, half = (-log_variance / 2).exp(), self.HALF_LEVEL
        inside = ndtr((half - off.abs()) * per_std) - ndtr((-half - off.abs()) * per_std)
        inside = torch.where(x < -0.999, ndtr((half + off) * per_std), inside)  # the outermost levels have no end
        inside = torch.where(x > 0.999, ndtr((half - off) * per_std), inside)
        first = t[:, None, None, None] * self.STEPS < 0.5
        return torch.where(first, -inside.clamp(min=1e-12).log(), divergence / 2) / math.log(2)

    def denoise(self, predict: Predict, noise: Tensor, steps: int, sampler: str, sources: Sources) -> Iterator[Tensor]:
        """Yields states of the reverse process, or of DDIM (arXiv 2010.02502), which draws no noise.

        It takes the steps nearest to evenly spaced ones from 999 to 0, as a process of its own.
        """
        from diffusers import DDIMScheduler, DDPMScheduler

        taken = torch.linspace(self.STEPS - 1, 0, steps, dtype=torch.float64).round().long()
        alphas_cumprod = self.alphas_cumprod[taken.flip(0)]
        betas = (1 - alphas_cumprod / _previous(alphas_cumprod)).tolist()
        process: dict[str, Any] = {"num_train_timesteps": steps, "trained_betas": betas, "clip_sample": False}
        ddim = sampler == "ddim"
        scheduler: Any = DDIMScheduler(**process) if ddim else DDPMScheduler(**process, variance_type="learned_range")
        scheduler.set_timesteps(steps)
        x = noise
        for number, step in zip(taken.tolist(), scheduler.timesteps, strict=True):
            out = predict(x, _expand(number / self.STEPS, x)).float()
            if ddim:
                out = out[:, : x.shape[1]]  # without the variance
            x = scheduler.step(out, step, x, generator=sources).prev_sample
            yield x

    def _coefficients(self, t: Tensor) -> Tensor:
        """Returns the rows of `table` at times (B,): (5, B, 1, 1, 1)."""
        self.table = self.table.to(t.device)
        return self.table[:, (t * self.STEPS).round().long(), None, None, None]


def build(name: str, outputs: int, **section: Any) -> Objective:
    """Returns the objective of a config's section `objective`."""
    known: dict[str, type[Flow | DDPM]] = {"flow": Flow, "ddpm": DDPM}
    return known[name](**section)


def _expand(t: float, x: Tensor) -> Tensor:
    """Returns the time t for every sample of x (B, C, H, W): (B,), fp32 in any precision of the model."""
    return torch.full(x.shape[:1], t, dtype=torch.float32, device=x.device)


def _previous(alphas_cumprod: Tensor) -> Tensor:
    """Returns the value of the step before each; before the first it is 1."""
    return F.pad(alphas_cumprod[:-1], (1, 0), value=1.0)
