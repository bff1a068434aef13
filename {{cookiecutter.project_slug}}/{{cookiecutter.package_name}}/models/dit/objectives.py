"""What a DiT is trained to predict, and how samples come out of it: equations, apart from the network.

B batch, C channels, H x W pixels or latents. Time t runs from 0 to 1, in a flow from noise to data, in ddpm from data
to noise: `progress` says how far from noise a time is.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.special import ndtr

from ...errors import require

Net = Callable[[Tensor, Tensor, Tensor], Tensor]  # (B, C, H, W), times (B,), labels (B,) -> (B, O C, H, W)


class Objective(Protocol):
    outputs: int  # O, quantities that the net predicts of every channel
    samplers: tuple[str, ...]  # the first one is the usual one
    most_steps: int | None  # that a sampler can take; None for any number

    def times(self, uniform: Tensor) -> Tensor:
        """(B,) numbers spread evenly over 0..1 -> (B,) times as training draws them."""

    def progress(self, t: float) -> float:
        """0 where there is noise alone, 1 where there is data."""

    def noisy(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """What the net is fed at time t: (B, C, H, W)."""

    def loss(self, net: Net, x: Tensor, labels: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """(B,) losses of the samples x (B, C, H, W), fp32."""

    def path(
        self,
        net: Net,
        noise: Tensor,
        labels: Tensor,
        steps: int,
        sampler: str,
        generators: Sequence[Generator] | None = None,
    ) -> Iterator[Tensor]:
        """From noise (B, C, H, W) in `steps` steps: the state after each of them, the last one the samples.

        Args:
            generators: one for each sample, on the CPU, of what a sampler draws on the way; None for PyTorch's own.
        """


class Flow:
    """A straight line from noise to data, x_t = (1 - t) noise + t x, and its velocity x - noise.

    Flow matching (Lipman et al., arXiv 2210.02747), rectified flow (Liu et al., arXiv 2209.03003).

    Args:
        prediction: what the net puts out: "velocity", or "data", from which the velocity follows (arXiv 2511.13720).
        time: how training draws t: "uniform", or "logit_normal" (arXiv 2403.03206), more often in the middle.
        time_mean, time_std: of the logit of t; below 0 is nearer to noise.
    """

    outputs = 1
    samplers: tuple[str, ...] = ("heun", "euler")
    most_steps: int | None = None
    NEAREST = 0.05  # of 1 - t, which data prediction divides by

    def __init__(
        self, prediction: str = "velocity", time: str = "uniform", time_mean: float = 0.0, time_std: float = 1.0
    ) -> None:
        known = prediction in ("velocity", "data")
        require(known, f"objective.prediction={prediction}: choose velocity or data")
        require(time in ("uniform", "logit_normal"), f"objective.time={time}: choose uniform or logit_normal")
        require(time_std > 0, f"objective.time_std={time_std}: expected a number above 0")
        self.prediction, self.time, self.time_mean, self.time_std = prediction, time, time_mean, time_std

    def times(self, uniform: Tensor) -> Tensor:
        if self.time == "uniform":
            return uniform
        quantiles = 2**0.5 * torch.erfinv(2 * uniform.clamp(1e-6, 1 - 1e-6) - 1)  # of a normal number
        return torch.sigmoid(self.time_mean + self.time_std * quantiles)

    def progress(self, t: float) -> float:
        return t

    def noisy(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        t = t[:, None, None, None]
        return (1 - t) * noise + t * x

    def loss(self, net: Net, x: Tensor, labels: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        x_t = self.noisy(x, t, noise)
        target = x - noise if self.prediction == "velocity" else self.towards(x, x_t, t)
        return (self.velocity(net, x_t, t, labels) - target).square().flatten(1).mean(1)

    def velocity(self, net: Net, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        out = net(x_t, t, labels).float()
        return out if self.prediction == "velocity" else self.towards(out, x_t, t)

    def towards(self, x: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The velocity at x_t that leads to x; it is bounded in the last twentieth of the way."""
        return (x - x_t) / (1 - t).clamp(min=self.NEAREST)[:, None, None, None]

    def path(
        self,
        net: Net,
        noise: Tensor,
        labels: Tensor,
        steps: int,
        sampler: str = "heun",
        generators: Sequence[Generator] | None = None,
    ) -> Iterator[Tensor]:
        """Heun's or Euler's steps along the velocity, of one length; each of Heun's but the last asks the net twice."""
        x = noise
        for step in range(steps):
            t, then = (_all_at(place / steps, x) for place in (step, step + 1))
            slope = self.velocity(net, x, t, labels)
            if sampler == "heun" and step + 1 < steps:
                slope = (slope + self.velocity(net, x + slope / steps, then, labels)) / 2
            x = x + slope / steps
            yield x


class DDPM:
    """The noise in x_s = sqrt(kept_s) x + sqrt(1 - kept_s) noise at a step s of 1000, and the variance of the way back.

    What the DiT paper trains: beta rises linearly, kept_s is the product of 1 - beta up to s (Ho et al., arXiv
    2006.11239), and t = s / 1000. The loss is L_simple + 0.001 L_vlb (Nichol and Dhariwal, arXiv 2102.09672): the
    squared error of the noise, and the variational bound, in bits, which trains the variance alone. L_vlb is a sum over
    1000 steps and a sample stands for all of them, so the term of its own step is added once.

    Raises:
        UsageError: diffusers, which samples, is not there.
    """

    outputs = 2
    samplers: tuple[str, ...] = ("ddpm", "ddim")
    STEPS = 1000
    most_steps: int | None = STEPS
    HALF = 1 / 255  # of one of 256 levels from -1 to 1, which step 0 is held to, as if data were images

    def __init__(self) -> None:
        installed = find_spec("diffusers") is not None
        require(installed, "objective=ddpm needs the package diffusers: uv sync --extra latents")
        beta = torch.linspace(1e-4, 0.02, self.STEPS, dtype=torch.float64)
        self.kept = (1 - beta).cumprod(0)
        posterior = beta * (1 - _before(self.kept)) / (1 - self.kept)  # variance of the way back when x is known
        posterior[0] = posterior[1]  # it is 0 there, but has a logarithm now
        error_to_mean = beta / ((1 - beta) * (1 - self.kept)).sqrt()
        self.noising = ByStep(self.kept.sqrt(), (1 - self.kept).sqrt())
        self.denoising = ByStep(posterior.log(), beta.log(), error_to_mean)

    def times(self, uniform: Tensor) -> Tensor:
        return (uniform * self.STEPS).floor().clamp(max=self.STEPS - 1) / self.STEPS

    def progress(self, t: float) -> float:
        return 1 - t

    def noisy(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        signal, std = self.noising.at(t)
        return signal * x + std * noise

    def loss(self, net: Net, x: Tensor, labels: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        predicted, v = net(self.noisy(x, t, noise), t, labels).float().chunk(2, dim=1)
        error = predicted - noise
        return (error.square() + self.bound(x, t, error.detach(), v)).flatten(1).mean(1)

    def bound(self, x: Tensor, t: Tensor, error: Tensor, v: Tensor) -> Tensor:
        """The terms of L_vlb (B, C, H, W), in bits: KL(q(x_s-1 | x_s, x) || p(x_s-1 | x_s)), at step 0 -log p(x | x_0).

        p has a mean that is off by what the `error` of the noise makes, and a variance that v, -1 to 1, puts on the
        logarithmic scale between q's and beta.
        """
        low, high, error_to_mean = self.denoising.at(t)
        log_variance, off = low + (v + 1) / 2 * (high - low), error_to_mean * error
        distance = (low - log_variance).exp() - 1 - (low - log_variance) + off.square() * (-log_variance).exp()
        per_std = (-log_variance / 2).exp()
        inside = ndtr((self.HALF - off.abs()) * per_std) - ndtr((-self.HALF - off.abs()) * per_std)
        inside = torch.where(x < -0.999, ndtr((self.HALF + off) * per_std), inside)  # the outermost levels have no end
        inside = torch.where(x > 0.999, ndtr((self.HALF - off) * per_std), inside)
        likelihood = inside.clamp(min=1e-12).log()
        first = t[:, None, None, None] * self.STEPS < 0.5
        return torch.where(first, -likelihood, distance / 2) / math.log(2)

    def path(
        self,
        net: Net,
        noise: Tensor,
        labels: Tensor,
        steps: int,
        sampler: str = "ddpm",
        generators: Sequence[Generator] | None = None,
    ) -> Iterator[Tensor]:
        """The reverse process, drawing noise at each step but the last, or DDIM (arXiv 2010.02502), which draws none.

        Of the 1000 steps it goes through those nearest to evenly spaced ones from 999 to 0, as a process of its own.
        """
        from diffusers import DDIMScheduler, DDPMScheduler

        places = torch.linspace(self.STEPS - 1, 0, steps, dtype=torch.float64).round().long()
        kept = self.kept[places.flip(0)]
        process = {"num_train_timesteps": steps, "trained_betas": (1 - kept / _before(kept)).tolist()}
        scheduler: Any = (
            DDIMScheduler(**process, clip_sample=False)
            if sampler == "ddim"
            else DDPMScheduler(**process, clip_sample=False, variance_type="learned_range")
        )
        scheduler.set_timesteps(steps)
        x, sources = noise, None if generators is None else list(generators)
        for place, step in zip(places.tolist(), scheduler.timesteps, strict=True):
            out = net(x, _all_at(place / self.STEPS, x), labels).float()
            if sampler == "ddim":
                out = out[:, : x.shape[1]]  # it has no use for the variance
            x = scheduler.step(out, step, x, generator=sources).prev_sample
            yield x


class ByStep:
    """K numbers for each of S steps, fp32. A device is sent them once: training waits for it until they are there."""

    def __init__(self, *rows: Tensor) -> None:
        self.rows = torch.stack(rows).float()  # (K, S)
        self.copies: dict[torch.device, Tensor] = {}

    def at(self, t: Tensor) -> Tensor:
        """Times s / S (B,) -> (K, B, 1, 1, 1), on their device."""
        if t.device not in self.copies:
            with torch.inference_mode(False):  # in which training could not use them
                self.copies[t.device] = self.rows.to(t.device)
        return self.copies[t.device][:, (t * self.rows.shape[1]).round().long(), None, None, None]


def build(name: str, outputs: int, **section: Any) -> Objective:
    """The objective of a config's section `objective`."""
    known: dict[str, Callable[..., Objective]] = {"flow": Flow, "ddpm": DDPM}
    require(name in known, f"objective.name={name}: choose from {', '.join(known)}")
    objective = known[name](**section)
    require(outputs == objective.outputs, f"objective.outputs={outputs}: {name} has {objective.outputs}")
    return objective


def _all_at(t: float, x: Tensor) -> Tensor:
    """The time t for every sample of x (B, C, H, W): (B,), fp32 whatever the net computes in."""
    return torch.full(x.shape[:1], t, dtype=torch.float32, device=x.device)


def _before(kept: Tensor) -> Tensor:
    """`kept` of the step before each; all is kept before the first."""
    return F.pad(kept[:-1], (1, 0), value=1.0)
