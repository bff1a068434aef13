"""The base class of the data modules: loaders over their splits, and Lightning's hooks."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import lightning as L
from torch.utils.data import DataLoader, Dataset, default_collate

from ..config.errors import UsageError
from ..utils import cpu_count, leave_signals
from .sampling import EvalSampler, TrainLoader, TrainSampler, permutation, rank_and_world

Loader = DataLoader[Any]


class DataModule(L.LightningDataModule):
    """A data module with the splits train, val and test; a subclass defines `sizes` and `dataset`.

    Every optimiser step takes the same number of samples; an epoch leaves out those that do not fill a step. Validation
    and test take every sample once, on any number of devices, in order.

    Args:
        batch_size: of one device and forward pass.
        workers: processes that load, per device; 0: the main process.
        pin_memory: page-locked batches, where they go to a GPU.
        seed: of the run, from which the order follows.
    """

    noun = "sample"  # in messages
    class_names: Sequence[str] = ()  # of the classes 0, 1, ..., if they have names
    repeats = False  # the first epoch again and again, with the same augmentation
    steps_per_epoch: int | None = None  # if fewer than the data allow
    damage: Callable[[Any], Dataset[Any]] | None = None  # wraps the samples of validation and test

    def __init__(self, batch_size: int, workers: int, pin_memory: bool, seed: int) -> None:
        super().__init__()
        self.batch_size, self.workers, self.pin_memory = batch_size, min(workers, cpu_count()), pin_memory
        self.seed = seed

    @property
    def found(self) -> dict[str, Any]:
        """Keys of section `data` that the data themselves decide, such as the number of classes."""
        return {}

    @property
    def sizes(self) -> dict[str, int]:
        """Samples in train, val and test."""
        raise NotImplementedError

    @property
    def notes(self) -> list[str]:
        """Lines about the data that a training prints."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Returns facts for the checkpoint, by which a resumed run finds out that the data have changed."""
        return {"sizes": self.sizes, "class_names": list(self.class_names)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises UsageError if the data are others than those of the checkpoint."""
        for name, value in self.state_dict().items():
            if state_dict[name] != value:
                raise UsageError(
                    f"data: they have changed since the run was saved: {name} {state_dict[name]} then, and {value} now"
                )

    def use_classes(self, class_names: Sequence[str]) -> None:
        """Numbers the classes as a trained model does. Raises ValueError if their names are others."""
        if sorted(class_names) != sorted(self.class_names):
            raise ValueError(f"the model knows the classes {', '.join(class_names)}, not {', '.join(self.class_names)}")

    def dataset(self, split: str) -> Dataset[Any]:
        """Returns the samples of a split, by (epoch, index)."""
        raise NotImplementedError

    def originals(self) -> Dataset[Any]:
        """Returns the training samples as validation would see them, by the same keys."""
        return self.dataset("train")

    def some(self, split: str, number: int) -> Any:
        """Returns one batch of up to `number` samples of a split, drawn by the seed, as validation would see them."""
        dataset = self.originals() if split == "train" else self.dataset(split)
        keys = [(0, index) for index in permutation(self.sizes[split], self.seed)[:number].tolist()]
        return next(iter(DataLoader(dataset, number, sampler=keys, collate_fn=self.collate("val"))))

    def collate(self, split: str) -> Callable[[list[Any]], Any]:
        """Returns the collate function of a split."""
        return default_collate

    def damaged(self, damage: Callable[[Any], Dataset[Any]] | None) -> Self:
        """Returns the same data with the samples of validation and test wrapped by `damage`."""
        other = copy.copy(self)
        other.damage = damage
        return other

    def sample_indices(self, number: int, batch_idx: int) -> range:
        """Returns the positions of a batch's samples in the split, or in the sequence that training sees."""
        rank, world = rank_and_world(self.trainer)
        first = batch_idx * self.batch_size
        return range(first * world + rank, (first + number) * world, world)

    def training_indices(self, number: int, batch_idx: int) -> list[tuple[int, int]]:
        """Returns the epoch, and the position in it, of each sample of the training batch at hand."""
        assert self.trainer is not None
        accumulate = self.trainer.accumulate_grad_batches
        batch = self.trainer.global_step * accumulate + batch_idx % accumulate
        return [divmod(index, self.epoch_size) for index in self.sample_indices(number, batch)]

    def check_trainable(self, step_size: int) -> None:
        """Raises ValueError if there are fewer training samples than one optimiser step takes."""
        if self.sizes["train"] < step_size:
            raise ValueError(
                f"one step takes {step_size} {self.noun}s, but there are {self.sizes['train']} to train on; "
                "lower total_batch_size"
            )

    @property
    def epoch_size(self) -> int:
        """Samples of an epoch, over all devices."""
        return (self.steps_per_epoch or self.sizes["train"] // self._step_size) * self._step_size

    @property
    def _step_size(self) -> int:
        """Samples of one optimiser step, over all devices."""
        _, world = rank_and_world(self.trainer)
        return self.batch_size * world * (self.trainer.accumulate_grad_batches if self.trainer is not None else 1)

    def train_dataloader(self) -> TrainLoader:
        rank, world = rank_and_world(self.trainer)
        self.check_trainable(self._step_size)
        steps = self.trainer.max_steps if self.trainer is not None else -1
        size = (steps * self._step_size if steps > 0 else self.epoch_size) // world
        sampler = TrainSampler(self.sizes["train"], self.seed, self.epoch_size, size, rank, world, self.repeats)
        options = {"sampler": sampler, **self._options("train")}
        return TrainLoader(self.dataset("train"), self.trainer, self._step_size, **options)

    def val_dataloader(self) -> Loader | list[Loader]:
        return self._eval_loader("val")

    def test_dataloader(self) -> Loader | list[Loader]:
        return self._eval_loader("test")

    def _eval_loader(self, split: str) -> Loader | list[Loader]:
        rank, world = rank_and_world(self.trainer)
        size = self.sizes[split]
        if size == 0:
            return []
        if size < world:
            raise UsageError(f"data: {size} {self.noun}(s) in {split} are too few for {world} devices")
        sampler = EvalSampler(size, rank, world)
        dataset = self.dataset(split) if self.damage is None else self.damage(self.dataset(split))
        return DataLoader(dataset, sampler=sampler, **self._options(split))

    def _options(self, split: str) -> dict[str, Any]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {
            "batch_size": self.batch_size,
            "collate_fn": self.collate(split),
            "num_workers": self.workers,
            "persistent_workers": self.workers > 0,
            "worker_init_fn": leave_signals,
            "pin_memory": self.pin_memory and on_gpu,
        }
