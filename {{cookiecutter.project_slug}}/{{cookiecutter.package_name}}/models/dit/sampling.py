"""Samples from a DiT: guidance, noise that follows from seeds, and batches.

B batch, C channels, H x W pixels or latents.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ...errors import require
from ...utils import evaluating
from .objectives import Net, Objective


class Guided:
    """A net that samples with classifier-free guidance (Ho and Salimans, arXiv 2207.12598) in an interval of times
    (Kynkäänniemi et al., arXiv 2404.07724): without a class, plus `scale` times what the class makes of it.

    Args:
        channels: C; all of them are guided, and what the net predicts besides, a variance, is that of the class.
        interval: of the way from noise, 0, to data, 1, in which guidance is on: from its start up to its end, which
            belongs to it where it is 1.
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
        if self.scale == 1 or not self._within(t):
            return self.net(x, t, labels)
        none = torch.full_like(labels, self.no_class)
        both = self.net(torch.cat((x, x)), torch.cat((t, t)), torch.cat((labels, none)))
        conditional, free = both.chunk(2)
        guided = free + self.scale * (conditional - free)
        return torch.cat((guided[:, : self.channels], conditional[:, self.channels :]), dim=1)

    def _within(self, t: Tensor) -> bool:
        low, high = self.interval
        if (low, high) == (0, 1):
            return True  # without a wait for the device
        place = round(self.objective.progress(t[0].item()), 6)  # as it is written: 0.3 in fp32 is more than 0.3
        return low <= place and (place < high or high == 1)


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One for each sample, on the CPU: what it draws is the same in any batch, on any device and any number of them."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def normal(sources: Sequence[torch.Generator], shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Normal numbers (B, *shape), fp32, those of a sample from its own source."""
    numbers = [torch.randn(tuple(shape), generator=source, dtype=torch.float32) for source in sources]
    return sent(torch.stack(numbers), device)


def draws(seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Uniform numbers (B, 2) and normal ones (B, *shape), fp32, those of a sample from its own seed alone."""
    sources = generators(seeds)
    uniform = torch.stack([torch.rand(2, generator=source, dtype=torch.float32) for source in sources])
    return sent(uniform, device), normal(sources, shape, device)


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the CPU on `device`; a GPU fetches it from page-locked memory, and nobody waits until it has."""
    on_gpu = torch.device(device).type == "cuda"
    return x.pin_memory().to(device, non_blocking=True) if on_gpu else x.to(device)


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
            classes = sent(torch.tensor(labels[rows]), device)
            with computing:
                path = objective.path(guided, noise, classes, steps, sampler, sources)
                samples = deque(path, maxlen=1).pop()
            yield samples  # outside, or what is done with them would be computed so too


def check_steps(objective: Objective, key: str, steps: int) -> None:
    """Raises UsageError if no sampler of `objective` goes in so many steps; `key` is what the user calls them."""
    most = objective.most_steps
    possible = 1 <= steps <= (most or steps)
    require(possible, f"{key}={steps}: expected at least 1{'' if most is None else f', and at most {most}'}")


def check_sampling(
    objective: Objective,
    label_dropout: float,
    steps: int,
    sampler: str,
    guidance: float,
    interval: Sequence[float],
    prefix: str = "",
) -> None:
    """What can be said of these before a net is asked.

    Args:
        label_dropout: share of the samples that the net was trained on without their class.
        sampler: empty for the objective's first.
        prefix: of the keys as the user types them.

    Raises:
        UsageError: a value out of range, or guidance of a net that knows nothing without a class.
    """
    check_steps(objective, f"{prefix}steps", steps)
    known = sampler in ("", *objective.samplers)
    require(known, f"{prefix}sampler={sampler}: choose {' or '.join(objective.samplers)}")
    require(guidance >= 0, f"{prefix}guidance={guidance}: expected 0 or more")
    rising = len(interval) == 2 and 0 <= interval[0] < interval[1] <= 1
    ends = ",".join(f"{end:g}" for end in interval)
    require(rising, f"{prefix}interval={ends}: expected two rising numbers from 0 to 1")
    untaught = "a net trained with task.label_dropout=0 has seen no image without its class; take 1"
    require(guidance == 1 or label_dropout > 0, f"{prefix}guidance={guidance}: {untaught}")
