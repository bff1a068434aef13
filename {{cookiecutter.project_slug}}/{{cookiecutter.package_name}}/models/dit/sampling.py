"""Sampling from a DiT, with classifier-free guidance and with noise that follows from seeds."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from ...utils import evaluating
from .objectives import Objective


@dataclass(frozen=True)
class Sampler:
    """Draws samples by a model. Equal seeds give equal samples, up to rounding, in batches of any size.

    Classifier-free guidance (arXiv 2207.12598): the prediction without a class plus `guidance` times the difference
    that the class makes, in an interval of times (arXiv 2404.07724). A predicted variance is that of the class.

    Args:
        model: called as `model(x, t, labels)`, in evaluation mode.
        objective: with which it was trained.
        shape: (C, H, W) of a sample.
        no_class: the label of no class.
        steps: of the sampler.
        sampler: one of `objective.samplers`; empty for the first.
        guidance: 1 for none.
        interval: start and end of guidance, 0 for noise and 1 for data; an end of 1 is included, others are not.
        context: entered around the model, for its precision.
    """

    model: torch.nn.Module
    objective: Objective
    shape: Sequence[int]
    no_class: int
    steps: int
    sampler: str = ""
    guidance: float = 1.0
    interval: Sequence[float] = (0.0, 1.0)
    context: Callable[[], AbstractContextManager[object]] = nullcontext

    def generate(self, labels: Sequence[int], seeds: Sequence[int], batch_size: int) -> Iterator[Tensor]:
        """Yields samples (B, C, H, W) in batches."""
        for first in range(0, len(labels), batch_size):
            rows = slice(first, first + batch_size)
            yield deque(self.trajectory(labels[rows], seeds[rows]), maxlen=1).pop()

    @torch.no_grad()
    def trajectory(self, labels: Sequence[int], seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yields noise (B, C, H, W), then the state after each step, on the model's device.

        Args:
            labels, seeds: one for each sample.
        """
        device, sources = next(self.model.parameters()).device, generators(seeds)
        noise = normal(sources, self.shape, device)
        predict = partial(self.predict, labels=to_device(torch.tensor(labels), device))
        with evaluating(self.model):
            yield noise
            yield from self.objective.denoise(
                predict, noise, self.steps, self.sampler or self.objective.samplers[0], sources
            )

    def predict(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Returns the guided prediction (B, O C, H, W) at one time t (B,)."""
        with self.context():
            if self.guidance == 1 or not self._guides_at(t):
                return self.model(x, t, labels)
            no_class = torch.full_like(labels, self.no_class)
            both = self.model(torch.cat((x, x)), torch.cat((t, t)), torch.cat((labels, no_class)))
        conditional, free = both.chunk(2)
        guided = free + self.guidance * (conditional - free)
        channels = x.shape[1]
        return torch.cat((guided[:, :channels], conditional[:, channels:]), dim=1)

    def _guides_at(self, t: Tensor) -> bool:
        low, high = self.interval
        if (low, high) == (0, 1):
            return True  # without a wait for the device
        progress = round(self.objective.progress(t[0].item()), 6)  # 0.3 in fp32 is more than 0.3
        return low <= progress and (progress < high or high == 1)


def generators(seeds: Sequence[int]) -> list[Generator]:
    """Returns a generator for each sample, on the CPU, so that its numbers are the same in any batch, on any device."""
    return [Generator().manual_seed(seed) for seed in seeds]


def normal(sources: Sequence[Generator], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Returns normal numbers (B, *shape), fp32, each sample's from its own generator."""
    numbers = [torch.randn(tuple(shape), generator=source, dtype=torch.float32) for source in sources]
    return to_device(torch.stack(numbers), device)


def draw_noise(seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Returns uniform numbers (B, 2) and normal ones (B, *shape), fp32, each sample's from its own seed."""
    sources = generators(seeds)
    uniform = torch.stack([torch.rand(2, generator=source, dtype=torch.float32) for source in sources])
    return to_device(uniform, device), normal(sources, shape, device)


def to_device(x: Tensor, device: torch.device | str) -> Tensor:
    """Returns a CPU tensor on `device`, to a GPU without a wait."""
    on_gpu = torch.device(device).type == "cuda"
    return x.pin_memory().to(device, non_blocking=True) if on_gpu else x.to(device)
