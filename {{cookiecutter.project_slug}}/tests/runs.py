"""What tests of whole runs share: the smallest run of each family, and how to read what a run wrote."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Start = Callable[..., tuple[Path, dict[str, Any]]]
ROOT = Path(__file__).parents[1]

# Of every family: two epochs of six steps, each of 32 samples.
SHORT = [
    "data.total_batch_size=32",
    "trainer.limit_train_batches=6",
    "trainer.log_every_n_steps=1",
    "trainer.max_epochs=2",
    "monitor.every_n_steps=4",
    "monitor.curves=",
]


@dataclass(frozen=True)
class Tiny:
    """The smallest run of a family and what is to be seen of it; tests/models/<family>/tiny.py has one as TINY."""

    family: str
    sizes: list[str]  # overrides that make net and data small
    norms: list[str]  # names of the net's norms, in the order of execution
    metrics: set[str]  # what is validated and tested, as in val/<metric>
    training: list[str]  # overrides under which every norm learns
    learned: float  # the validation loss that is then surely below
    unit: str = "samples"  # what throughput counts
    files: set[str] = field(default_factory=set)  # that its run directory holds besides those of every family
    starts: list[list[str]] = field(default_factory=list)  # overrides under which weights are drawn in other ways
    random: list[str] = field(default_factory=list)  # overrides under which training draws random numbers
    refusals: list[tuple[list[str], str]] = field(default_factory=list)  # overrides of the whole recipe, and the answer

    @property
    def argv(self) -> list[str]:
        return [f"task={self.family}", *SHORT, *self.sizes]

    def __str__(self) -> str:
        return self.family


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def rows(run: Path) -> list[tuple[int, str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), row["tag"], float(row["value"])) for row in csv.DictReader(file)]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns the points of TensorBoard's curves, by tag and in order of step."""
    found: dict[str, list[tuple[int, float]]] = {}
    # file by file: TensorBoard sorts them by name, where of two from one second the tenth comes before the ninth
    for file in run.glob("*tfevents*"):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    return {tag: sorted(points) for tag, points in found.items()}
