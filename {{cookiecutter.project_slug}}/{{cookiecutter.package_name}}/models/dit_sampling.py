"""Samples from a DiT: guidance, noise that follows from seeds, and batches.

B batch, C channels, H x W pixels or latents.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..modes import evaluating
from .dit_objectives import Net, Objective


class Guided:
    """A net that samples with classifier-free guidance (Ho and Salimans, arXiv 2207.12598) in an interval of times
    (Kynkäänniemi et al., arXiv 2404.07724): without a class, plus `scale` times what the class makes of it.

    Args:
        channels: C; all of them are guided, and what the net predicts besides, a variance, is that of the class.
        interval: of the way from noise, 0, to data, 1, in which guidance is on.
    """

    def __init__(
        self,
        net: Net,
        objective: Objective,
        no_class: int,
        channels: int,
        scale: float,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.net, self.objective, self.no_class, self.channels = net, objective, no_class, channels
        self.scale, self.interval = scale, interval

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        low, high = self.interval
        if self.scale == 1 or not low <= self.objective.progress(t[0].item()) <= high:
            return self.net(x, t, labels)
        none = torch.full_like(labels, self.no_class)
        both = self.net(torch.cat((x, x)), torch.cat((t, t)), torch.cat((labels, none)))
        conditional, free = both.chunk(2)
        guided = free + self.scale * (conditional - free)
        return torch.cat((guided[:, : self.channels], conditional[:, self.channels :]), dim=1)


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One for each sample, on the CPU: what it draws is the same in any batch, on any device and any number of them."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def normal(sources: Sequence[torch.Generator], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Normal numbers (B, *shape), those of a sample from its own source."""
    return torch.stack([torch.randn(tuple(shape), generator=source) for source in sources]).to(device)


def draws(seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Uniform numbers (B, 2) and normal ones (B, *shape), those of a sample from its own seed alone."""
    sources = generators(seeds)
    uniform = torch.stack([torch.rand(2, generator=source) for source in sources])
    return uniform.to(device), normal(sources, shape, device)


@torch.no_grad()
def generate(
    net: nn.Module,
    objective: Objective,
    labels: Sequence[int],
    seeds: Sequence[int],
    shape: Sequence[int],
    no_class: int,
    steps: int,
    sampler: str,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    batch_size: int = 256,
    autocast: torch.dtype | None = None,
) -> Iterator[Tensor]:
    """Samples (B, C, H, W) in batches, on the net's device; in evaluation mode, whatever the net is in.

    Args:
        labels: a class for each sample.
        seeds: of all that it draws. Equal ones give equal samples, up to rounding, in any batch.
        shape: (C, H, W).
        no_class: the label that guidance starts from.
        autocast: what matrix products are computed in; None for the weights' own.
    """
    device = next(net.parameters()).device
    guided = Guided(net, objective, no_class, shape[0], guidance, interval)
    computing = nullcontext() if autocast is None else torch.autocast(device.type, autocast)
    with evaluating(net):
        for first in range(0, len(labels), batch_size):
            rows = slice(first, first + batch_size)
            sources = generators(seeds[rows])
            noise = normal(sources, shape, device)
            classes = torch.tensor(labels[rows], device=device)
            with computing:
                path = objective.path(guided, noise, classes, steps, sampler, sources)
                samples = deque(path, maxlen=1).pop()
            yield samples  # outside, or what is done with them would be computed so too
