"""Sampling from a DiT: classifier-free guidance, noise that follows from seeds, batches."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ...utils import evaluating
from .objectives import Model, Objective

Context = Callable[[], AbstractContextManager[object]]


class Guided:
    """A model with classifier-free guidance (arXiv 2207.12598) in an interval of times (arXiv 2404.07724).

    It returns the prediction without a class plus `scale` times the difference that the class makes.

    Args:
        no_class: the label of no class.
        channels: C; all of them are guided. A predicted variance is that of the class.
        interval: guidance is on from its start up to its end, 0 for noise and 1 for data; the end 1 belongs to it.
        context: entered around the model, for its precision.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        no_class: int,
        channels: int,
        scale: float,
        interval: Sequence[float] = (0.0, 1.0),
        context: Context = nullcontext,
    ) -> None:
        self.model, self.objective, self.no_class, self.channels = model, objective, no_class, channels
        self.scale, self.interval, self.context = scale, tuple(interval), context

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        with self.context():
            if self.scale == 1 or not self._within(t):
                return self.model(x, t, labels)
            none = torch.full_like(labels, self.no_class)
            both = self.model(torch.cat((x, x)), torch.cat((t, t)), torch.cat((labels, none)))
        conditional, free = both.chunk(2)
        guided = free + self.scale * (conditional - free)
        return torch.cat((guided[:, : self.channels], conditional[:, self.channels :]), dim=1)

    def _within(self, t: Tensor) -> bool:
        low, high = self.interval
        if (low, high) == (0, 1):
            return True  # without a wait for the device
        progress = round(self.objective.progress(t[0].item()), 6)  # 0.3 in fp32 is more than 0.3
        return low <= progress and (progress < high or high == 1)


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Returns a generator for each sample, on the CPU, so that its numbers are the same in any batch, on any device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def normal(sources: Sequence[torch.Generator], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
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


@torch.no_grad()
def trajectory(
    model: nn.Module,
    objective: Objective,
    labels: Sequence[int],
    seeds: Sequence[int],
    shape: Sequence[int],
    no_class: int,
    steps: int,
    sampler: str = "",
    guidance: float = 1.0,
    interval: Sequence[float] = (0.0, 1.0),
    context: Context = nullcontext,
) -> Iterator[Tensor]:
    """Yields noise (B, C, H, W), then the state after each step, on the model's device.

    The model runs in evaluation mode. Equal seeds give equal samples, up to rounding, in any batch.

    Args:
        labels: a class for each sample.
        seeds: one for each sample.
        shape: (C, H, W).
        sampler: empty for the objective's first.
        no_class, guidance, interval, context: see `Guided`.
    """
    device = next(model.parameters()).device
    guided = Guided(model, objective, no_class, shape[0], guidance, interval, context)
    sources = generators(seeds)
    noise, classes = normal(sources, shape, device), to_device(torch.tensor(labels), device)
    with evaluating(model):
        yield noise
        yield from objective.denoise(guided, noise, classes, steps, sampler or objective.samplers[0], sources)


def generate(
    model: nn.Module,
    objective: Objective,
    labels: Sequence[int],
    seeds: Sequence[int],
    shape: Sequence[int],
    no_class: int,
    steps: int,
    batch_size: int = 256,
    **options: Any,
) -> Iterator[Tensor]:
    """Yields samples (B, C, H, W) in batches; the other arguments are those of `trajectory`."""
    for first in range(0, len(labels), batch_size):
        rows = slice(first, first + batch_size)
        states = trajectory(model, objective, labels[rows], seeds[rows], shape, no_class, steps, **options)
        yield deque(states, maxlen=1).pop()
