"""How many processes, and how the batch divides over them."""

import re

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from {{cookiecutter.package_name}}.distributed import process_count, split_batch


@pytest.mark.parametrize(
    ("total", "per_device", "processes", "split"),
    [(64, 0, 1, (64, 1)), (64, 0, 2, (32, 1)), (4096, 128, 8, (128, 4)), (64, 64, 1, (64, 1)), (6, 1, 2, (1, 3))],
)
def test_total_is_devices_times_batch_times_accumulation(
    total: int, per_device: int, processes: int, split: tuple[int, int]
) -> None:
    assert split_batch(total, per_device, processes) == split


@pytest.mark.parametrize(
    ("total", "per_device", "processes", "words"),
    [
        (65, 0, 2, "does not divide over 2 device(s); choose a multiple of 2"),
        (127, 0, 4, "does not divide over 4 device(s); choose a multiple of 4"),
        (127, 3, 2, "does not divide over 3 a device on 2 device(s); choose a multiple of 6"),
        (64, 48, 1, "does not divide over 48 a device on 1 device(s); choose a multiple of 48"),
        (1, 0, 2, "choose a multiple of 2"),
    ],
)
def test_batches_that_do_not_divide(total: int, per_device: int, processes: int, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words) + r"(?!\d)"):
        split_batch(total, per_device, processes)


def trainer(accelerator: str, devices: str, num_nodes: int = 1) -> DictConfig:
    return OmegaConf.create({"accelerator": accelerator, "devices": devices, "num_nodes": num_nodes})


@pytest.mark.parametrize(
    ("accelerator", "devices", "nodes", "gpus", "processes"),
    [
        ("auto", "1", 1, 0, 1),
        ("cpu", "2", 1, 8, 2),
        ("cpu", "auto", 1, 8, 1),
        ("gpu", "auto", 1, 8, 8),
        ("gpu", "auto", 4, 8, 32),
        ("gpu", "[0,3]", 1, 8, 2),
        ("gpu", "-1", 1, 8, 8),
    ],
)
def test_processes(
    accelerator: str, devices: str, nodes: int, gpus: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert process_count(trainer(accelerator, devices, nodes)) == processes


@pytest.mark.parametrize(
    ("variables", "launched"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_JOB_ID": "7"}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, True),
        ({"TORCHELASTIC_RUN_ID": "none"}, True),
        ({"NODE_RANK": "0"}, True),
    ],
)
def test_many_machines_need_something_that_starts_them(
    variables: dict[str, str], launched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_NTASKS", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if launched:
        assert process_count(trainer("cpu", "1", 2)) == 2
    else:
        with pytest.raises(ValueError, match=r"num_nodes=2: .*torchrun or srun \(docs/multinode\.md\)"):
            process_count(trainer("cpu", "1", 2))
    assert process_count(trainer("cpu", "1")) == 1


@pytest.mark.parametrize(
    ("accelerator", "devices", "gpus", "words"),
    [
        ("gpu", "1", 0, "PyTorch finds no GPU here; trainer=cpu trains without"),
        ("gpu", "9", 8, "devices=9: this machine has 8 GPU(s)"),
        ("gpu", "[0,8]", 8, "devices=[0,8]: this machine has 8 GPU(s)"),
        ("cpu", "0", 0, "devices=0: expected at least one device"),
        ("cpu", "two", 0, "devices=two: expected auto, a number, or a list like [0,1]"),
    ],
)
def test_devices_that_are_not_there(
    accelerator: str, devices: str, gpus: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=re.escape(words)):
        process_count(trainer(accelerator, devices))
