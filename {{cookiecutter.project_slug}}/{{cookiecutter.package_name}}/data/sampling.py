"""Which samples a rank sees, in which order, and how a run resumes in the middle of an epoch.

Order and augmentation are functions of (seed, epoch, index): a sampler hands out (epoch, index), and the dataset seeds
itself with them. Nothing random has to be saved, and neither the number of workers nor an interruption changes a pixel.
"""

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..utils import mix


class SeededSampler(Sampler[tuple[int, int]]):
    """This rank's (epoch, index) pairs, in an order that depends on seed and epoch alone.

    Ranks take turns in one common order, so that a step over all of them sees the same samples however many they are.

    Args:
        length: samples of the dataset.
        seed: of the run; it shuffles every epoch anew.
        shuffle: False keeps the order of the dataset.
        rank, world: this process among those that share the dataset.
        multiple: for training: every rank gets the same number of samples, the largest multiple of this. 0, for
            evaluation: every sample is dealt out once, none repeated or left out, and ranks may differ by one.
    """

    def __init__(
        self, length: int, seed: int = 0, shuffle: bool = False, rank: int = 0, world: int = 1, multiple: int = 0
    ) -> None:
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world = rank, world
        self.size = length // (world * multiple) * multiple if multiple else len(range(rank, length, world))
        self.epoch = 0
        self.start = 0  # samples of this rank that the next pass leaves out

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        """Samples of a whole pass, also when the next one starts late: Lightning counts an epoch's batches by it."""
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, start, self.start = self.epoch, self.start, 0
        if self.shuffle:
            order = torch.randperm(self.length, generator=torch.Generator().manual_seed(mix(self.seed, epoch)))
        else:
            order = torch.arange(self.length)
        for part in order[self.rank :: self.world][start : self.size].split(2**16):  # one list of all takes much memory
            for index in part.tolist():
                yield epoch, index


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over a `SeededSampler` whose pass begins where the trainer's counters stand.

    Lightning resumes in mid-epoch by counting on from the interrupted batch, but leaves it to the loader to skip what
    was seen. It also calls `iter()` before its counters are restored (`trainer.estimated_stepping_batches` builds the
    loader while the optimiser is configured), and workers would fetch at once. So a pass looks at the counters when its
    first batch is asked for. It takes the epoch from there too: in a run limited by `max_steps` that resumes from the
    end of an epoch, Lightning calls `set_epoch` with one too many.

    Args:
        trainer: without one, or while it does not train, a pass is a whole one, of the sampler's epoch.
        options: those of DataLoader.
    """

    sampler: SeededSampler
    batch_size: int

    def __init__(self, dataset: Dataset[Any], trainer: L.Trainer | None, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.trainer = trainer

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.trainer is not None and self.trainer.training:
            self.sampler.set_epoch(self.trainer.current_epoch)
            self.sampler.start = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready * self.batch_size
        yield from super().__iter__()

    # Lightning trusts a loader to resume if it has these two; here its own counters are all the state there is.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def rank_and_world(trainer: L.Trainer | None) -> tuple[int, int]:
    """This process among those that split the data; tensor-parallel ranks count as one."""
    place = trainer.distributed_sampler_kwargs if trainer is not None else None
    return (place["rank"], place["num_replicas"]) if place else (0, 1)
