"""Small runs that any test can ask for."""

import signal
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from {{cookiecutter.package_name}} import train as fit
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.models import NAMES

from .runs import Start, Tiny

DEFAULT = compose([]).defaults.task
# Of every family, the default one first.
FAMILIES: list[Tiny] = sorted(
    (import_module(f".models.{name}.tiny", __package__).TINY for name in NAMES),
    key=lambda tiny: (tiny.family != DEFAULT, tiny.family),
)
# What a test must find in every family; the others take the default one.
each_family = pytest.mark.parametrize("tiny", FAMILIES, ids=str, indirect=True)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small nets are quickest so, and the order of sums is then the same everywhere."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return getattr(request, "param", FAMILIES[0])


@pytest.fixture
def start(tiny: Tiny, tmp_path: Path) -> Iterator[Start]:
    """`start("norm=ln", ...)` trains a tiny net for two epochs and returns its run directory and summary."""
    handler = signal.getsignal(signal.SIGINT)

    def train(*argv: str, cfg: DictConfig | None = None) -> tuple[Path, dict[str, Any]]:
        return fit.train(cfg or compose([*tiny.argv, f"runs={tmp_path / 'runs'}", *argv]))

    yield train
    signal.signal(signal.SIGINT, handler)  # Lightning ignores Ctrl-C once it has seen one


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """Of two processes, of which this is the second; "fake" never waits for the first."""
    init_process_group("fake", rank=1, world_size=2)
    yield init_device_mesh("cpu", (2,))
    destroy_process_group()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests of runs of two processes as slow."""
    for item in items:
        if isinstance(item, pytest.Function) and "two_processes" in item.fixturenames:
            item.add_marker(pytest.mark.slow)
