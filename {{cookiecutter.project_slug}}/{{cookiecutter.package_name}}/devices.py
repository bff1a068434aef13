"""Which devices a run gets, checked before anything starts."""

import os

import torch
from omegaconf import DictConfig

from .errors import UsageError


def process_count(trainer: DictConfig) -> int:
    """Processes of all nodes together, one a device, as section `trainer` asks for them.

    Raises:
        UsageError: devices that this machine does not have, or several machines and nothing that starts them.
    """
    if trainer.num_nodes < 1:
        raise UsageError(f"trainer.num_nodes={trainer.num_nodes}: expected a whole number from 1 on")
    if trainer.num_nodes > 1 and not _launched():
        started = "each machine waits for the others, and nothing started them; start it with torchrun or srun"
        raise UsageError(f"trainer.num_nodes={trainer.num_nodes}: {started} (docs/multinode.md)")
    return int(trainer.num_nodes) * _per_node(trainer.accelerator, trainer.devices)


def split_batch(total: int, per_device: int, processes: int) -> tuple[int, int]:
    """Samples per device and forward pass, and over how many of these the gradients accumulate.

    Args:
        total: samples per optimiser step, of all processes.
        per_device: 0 for as many as it takes to need no accumulation.
    """
    if total < 1:
        raise UsageError(f"data.total_batch_size={total}: expected a whole number from 1 on")
    if per_device < 0:
        raise UsageError(f"data.batch_size={per_device}: expected 1 or more, or 0 for total_batch_size / devices")
    unit = (per_device or 1) * processes
    if total % unit:
        over = f"over {per_device} a device on {processes} device(s)" if per_device else f"over {processes} device(s)"
        raise UsageError(f"data.total_batch_size={total}: it does not divide {over}; choose a multiple of {unit}")
    each = per_device or total // processes
    return each, total // (each * processes)


def device_list(devices: str) -> int | list[int] | str:
    """Key `trainer.devices` as Lightning takes it: a number, a list, or "auto"."""
    if devices == "auto":
        return devices
    try:
        numbers = [int(part) for part in devices.strip("[] ").split(",")]
    except ValueError:
        raise UsageError(f"trainer.devices={devices}: expected auto, a number, or a list like [0,1]") from None
    return numbers if "," in devices or "[" in devices else numbers[0]


def this_device(trainer: DictConfig) -> torch.device:
    """The one that this process will train on, before Lightning has chosen it."""
    gpu = torch.accelerator.current_accelerator(check_available=True)
    if trainer.accelerator == "cpu" or gpu is None:
        return torch.device("cpu")
    wanted, place = device_list(trainer.devices), int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
    return torch.device(gpu.type, wanted[place] if isinstance(wanted, list) else place)


def _launched() -> bool:
    """Whether torchrun, SLURM or a user's own launcher says which of the processes this is."""
    by_slurm = "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1"
    return by_slurm or "TORCHELASTIC_RUN_ID" in os.environ or "NODE_RANK" in os.environ


def _per_node(accelerator: str, devices: str) -> int:
    if accelerator not in ("auto", "cpu", "gpu", "cuda", "mps"):
        raise UsageError(f"trainer.accelerator={accelerator}: choose from auto, cpu, gpu, cuda, mps")
    gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not gpus)
    if not on_cpu and not gpus:
        raise UsageError(f"trainer.accelerator={accelerator}: PyTorch finds no GPU here; trainer=cpu trains without")
    wanted = device_list(devices)
    if wanted in ("auto", -1):
        return 1 if on_cpu else gpus
    count, highest = (len(wanted), max(wanted) + 1) if isinstance(wanted, list) else (int(wanted), int(wanted))
    if count < 1:
        raise UsageError(f"trainer.devices={devices}: expected at least one device")
    if not on_cpu and highest > gpus:
        raise UsageError(f"trainer.devices={devices}: this machine has {gpus} GPU(s); ask for no more, or auto for all")
    return count
