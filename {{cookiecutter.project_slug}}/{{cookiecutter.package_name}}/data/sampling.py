"""The order of samples: which of them a device sees at which optimiser step.

Order and augmentation are functions of (seed, epoch, index). A sampler yields (epoch, index), and the dataset seeds
itself with them. So no random state is saved, and neither workers nor an interruption change a pixel.
"""

from collections.abc import Iterator
from itertools import count, islice, repeat
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..utils import mix


def permutation(length: int, seed: int, epoch: int = 0) -> Tensor:
    """Returns the order in which an epoch sees the samples 0 to length - 1."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(mix(seed, epoch)))


class TrainSampler(Sampler[tuple[int, int]]):
    """One endless sequence of (epoch, index), of which the devices take turns, from `start` on.

    Every step over all devices sees the same samples however many devices there are.

    Args:
        length: samples of the dataset.
        seed: of the run.
        epoch_size: samples of one epoch over all devices; the rest of its permutation is left out.
        size: samples that this device takes in one pass.
        rank, world: this process among those that share the dataset.
        repeats: every epoch is the first one.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        epoch_size: int,
        size: int,
        rank: int = 0,
        world: int = 1,
        repeats: bool = False,
    ) -> None:
        self.length, self.seed, self.epoch_size, self.size = length, seed, epoch_size, size
        self.rank, self.world, self.repeats = rank, world, repeats
        self.start = 0  # position in the sequence, over all devices, where the next pass begins

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return islice(self._sequence(), self.size)

    def _sequence(self) -> Iterator[tuple[int, int]]:
        first, skip = divmod(self.start, self.epoch_size)
        for epoch in repeat(0) if self.repeats else count(first):
            order = permutation(self.length, self.seed, epoch)[skip : self.epoch_size]
            for part in order[self.rank :: self.world].split(2**16):  # a list of all would take much memory
                for index in part.tolist():
                    yield epoch, index
            skip = 0


class EvalSampler(Sampler[tuple[int, int]]):
    """Every sample once, in order, dealt out to the devices in turn: they may differ by one."""

    def __init__(self, length: int, rank: int = 0, world: int = 1) -> None:
        self.indices = range(rank, length, world)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, index) for index in self.indices)


class TrainLoader(DataLoader[Any]):
    """A DataLoader over a `TrainSampler` that begins at the trainer's optimiser step.

    It looks at the step when its first batch is asked for: Lightning calls `iter()` before a resumed run has its step.

    Args:
        step_size: samples of one step over all devices.
    """

    sampler: TrainSampler

    def __init__(self, dataset: Dataset[Any], trainer: L.Trainer | None, step_size: int, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.trainer, self.step_size = trainer, step_size

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.trainer is not None:
            self.sampler.start = self.trainer.global_step * self.step_size
        yield from super().__iter__()


def rank_and_world(trainer: L.Trainer | None) -> tuple[int, int]:
    """Returns this process among those that split the data; tensor-parallel ranks count as one."""
    place = trainer.distributed_sampler_kwargs if trainer is not None else None
    return (place["rank"], place["num_replicas"]) if place else (0, 1)
