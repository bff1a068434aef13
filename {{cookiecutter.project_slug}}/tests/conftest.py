"""Small runs that any test can ask for."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from {{cookiecutter.package_name}} import fit
from {{cookiecutter.package_name}}.config import compose

TINY = [
    "model.depth=2",
    "model.embed_dim=32",
    "model.num_heads=2",
    "data.total_batch_size=32",
    "trainer.limit_train_batches=6",
    "trainer.log_every_n_steps=1",
    "trainer.max_epochs=2",
    "monitor.every_n_steps=4",
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small nets are quickest so, and the order of sums is then the same everywhere."""
    torch.set_num_threads(1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[Path, dict[str, Any]]]]:
    """`start("norm=ln", ...)` trains a tiny net for two epochs and returns its run directory and summary."""
    handler = signal.getsignal(signal.SIGINT)

    def train(*argv: str, cfg: DictConfig | None = None) -> tuple[Path, dict[str, Any]]:
        return fit.train(cfg or compose([*TINY, f"runs={tmp_path / 'runs'}", *argv]))

    yield train
    signal.signal(signal.SIGINT, handler)  # Lightning ignores Ctrl-C once it has seen one
