"""Devices, DDP and FSDP2: how many processes there are, what they divide, and the sharding of a model."""

import os
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from .norms import is_norm
from .utils import cpu_count


def sharded_strategy(processes: int) -> ModelParallelStrategy:
    """Returns FSDP2 over all processes. A checkpoint is one file, which the first process gathers and writes."""
    return ModelParallelStrategy(
        data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


class EqualForwards(L.Callback):
    """Lets all processes run a sharded model equally often in an evaluation.

    Each sample is evaluated once, so a process may have a batch less than another. It runs its last batch again then,
    because the others need its part of the weights.
    """

    def __init__(self) -> None:
        self._mine = 0  # batches of this process
        self._most = 0  # of the one that has most

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._count(trainer, trainer.num_val_batches)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._count(trainer, trainer.num_test_batches)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx + 1 == self._mine:
            with trainer.strategy.precision_plugin.forward_context():
                for _ in range(self._most - self._mine):
                    pl_module.eval_model(*pl_module.hook_inputs(batch))  # type: ignore[operator]

    on_test_batch_end = on_validation_batch_end

    def _count(self, trainer: L.Trainer, batches: Any) -> None:
        self._mine = int(sum(batches))
        most = torch.tensor(self._mine, device=trainer.strategy.root_device)
        self._most = int(trainer.strategy.reduce(most, reduce_op="max"))


def check_shardable(model: nn.Module, precision: str) -> None:
    """Checks that `shard` can divide a model.

    Raises:
        ValueError: torch is too old for the precision, or a norm on the "meta" device cannot start its parameters.
    """
    new = precision == "32-true" or "param_dtype_override_fn" in MixedPrecisionPolicy.__dataclass_fields__
    if not new:
        raise ValueError(f"FSDP in {precision} needs torch 2.15; with this one it runs in 32-true")
    for name, norm in model.named_modules() if any(parameter.is_meta for parameter in model.parameters()) else ():
        if is_norm(norm) and list(norm.parameters()) and not hasattr(norm, "reset_parameters"):
            raise ValueError(f"norm {name} has parameters and no reset_parameters(), by which FSDP starts them")


def shard(model: nn.Module, mesh: DeviceMesh, precision: str, seed: int) -> None:
    """Divides a model over the processes of `mesh`, in place and block by block; does nothing if it is divided.

    A model on the "meta" device then draws its weights from `seed`. Under bf16-mixed those weights are gathered in
    bf16 that autocast would cast; all others stay fp32, alpha among them.
    """
    if isinstance(model, FSDPModule):
        return
    policy = _mixed_precision(model) if precision == "bf16-mixed" else MixedPrecisionPolicy()
    for part in (*getattr(model, "blocks", ()), model):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    if any(parameter.is_meta for parameter in model.parameters()):
        model.to_empty(device=mesh.device_type)
        torch.manual_seed(seed)
        model.init_weights()  # type: ignore[operator]


def _mixed_precision(model: nn.Module) -> MixedPrecisionPolicy:
    """Returns a policy that gathers in bf16 the weights of linear layers and convolutions, but no shared embedding."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)]
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    narrow = {id(layer.weight) for layer in layers} - embeddings
    return MixedPrecisionPolicy(
        param_dtype=torch.bfloat16,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
        param_dtype_override_fn=lambda parameter: None if id(parameter) in narrow else parameter.dtype,
    )


def full_tensor(tensor: Tensor) -> Tensor:
    """Returns the whole of a sharded tensor; a collective call, so all processes must make it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def process_count(trainer: DictConfig) -> int:
    """Returns the number of processes on all nodes, one for each device, that section `trainer` asks for.

    Raises:
        ValueError: devices that this machine does not have, or several machines that nothing has started.
    """
    if trainer.num_nodes > 1 and not _launched():
        raise ValueError(
            f"num_nodes={trainer.num_nodes}: each machine waits for the others, and nothing started them; "
            "start it with torchrun or srun (docs/multinode.md)"
        )
    return int(trainer.num_nodes) * _per_node(trainer.accelerator, trainer.devices)


def split_batch(total: int, per_device: int, processes: int) -> tuple[int, int]:
    """Returns the samples per device and forward pass, and the number of these that gradients accumulate over.

    Args:
        total: samples per optimiser step, of all processes.
        per_device: 0 for as many as it takes to need no accumulation.

    Raises:
        ValueError: it does not divide.
    """
    unit = (per_device or 1) * processes
    if total % unit:
        over = f"{per_device} a device on {processes} device(s)" if per_device else f"{processes} device(s)"
        raise ValueError(f"total_batch_size={total} does not divide over {over}; choose a multiple of {unit}")
    each = per_device or total // processes
    return each, total // (each * processes)


def device_list(devices: str) -> int | list[int] | str:
    """Returns section `trainer`'s `devices` as Lightning takes them: a number, a list, or "auto"."""
    if devices == "auto":
        return devices
    try:
        numbers = [int(part) for part in devices.strip("[] ").split(",")]
    except ValueError:
        raise ValueError(f"devices={devices}: expected auto, a number, or a list like [0,1]") from None
    return numbers if "," in devices or "[" in devices else numbers[0]


def this_device(trainer: DictConfig) -> torch.device:
    """Returns the device that this process will train on, before Lightning has chosen it."""
    gpu = torch.accelerator.current_accelerator(check_available=True)
    if trainer.accelerator == "cpu" or gpu is None:
        return torch.device("cpu")
    wanted, place = device_list(trainer.devices), int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
    return torch.device(gpu.type, wanted[place] if isinstance(wanted, list) else place)


def memory_bytes(device: torch.device) -> int | None:
    """Returns the size of a device's memory; None where nothing tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _launched() -> bool:
    """Returns whether torchrun, SLURM or another launcher started this process."""
    by_slurm = "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1"
    return by_slurm or "TORCHELASTIC_RUN_ID" in os.environ or "NODE_RANK" in os.environ


def _per_node(accelerator: str, devices: str) -> int:
    gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not gpus)
    if not on_cpu and not gpus:
        raise ValueError(f"accelerator={accelerator}: PyTorch finds no GPU here; trainer=cpu trains without")
    wanted = device_list(devices)
    if wanted in ("auto", -1):
        return 1 if on_cpu else gpus
    count, highest = (len(wanted), max(wanted) + 1) if isinstance(wanted, list) else (int(wanted), int(wanted))
    if count < 1:
        raise ValueError(f"devices={devices}: expected at least one device")
    if on_cpu and count > max(2, cpu_count()):
        raise ValueError(f"devices={devices}: this machine has {cpu_count()} CPU(s) for as many processes")
    if not on_cpu and highest > gpus:
        raise ValueError(f"devices={devices}: this machine has {gpus} GPU(s); ask for no more, or auto for all")
    return count
