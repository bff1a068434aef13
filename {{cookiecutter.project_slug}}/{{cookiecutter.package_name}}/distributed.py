"""Devices, DDP and FSDP2: their checks, the sharding of a model, and sharded checkpoints."""

import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from .config.errors import UsageError, require
from .norms import has_batch_norm, is_norm


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes. A checkpoint is a directory, in which every process has its own file."""

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Beside the one that is there, which goes when the new one is whole."""
        path = Path(self.broadcast(str(filepath)))
        new, old = path.with_name(f"{path.name}.new"), path.with_name(f"{path.name}.old")
        if self.is_global_zero:
            shutil.rmtree(new, ignore_errors=True)  # of a save that broke off
        self.barrier()
        super().save_checkpoint(checkpoint, new, storage_options)
        self.barrier()
        if self.is_global_zero:
            if path.exists():  # else `old` is the last whole one, of a save that broke off between the two names
                _remove(old)
                path.rename(old)
            new.rename(path)
            _remove(old)
        self.barrier()


class EqualForwards(L.Callback):
    """Lets every process run the net equally often in an evaluation, as the others wait for its part of the weights.

    Every sample is dealt out once, so that a process may have a batch less than another. It then runs its last one
    again, for nothing.
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


def check_shardable(net: nn.Module, precision: str) -> None:
    """Raises UsageError for what `shard` cannot do, or what a sharded net would do wrong."""
    require(not has_batch_norm(net), "norm=bn: under FSDP every device would have its own statistics; take trainer=ddp")
    known = precision in ("32-true", "bf16-mixed")
    require(known, f"trainer.precision={precision}: choose 32-true or bf16-mixed for trainer=fsdp")
    new = precision == "32-true" or "param_dtype_override_fn" in MixedPrecisionPolicy.__dataclass_fields__
    require(new, f"trainer.precision={precision}: trainer=fsdp needs torch 2.15 for it; take 32-true")
    for name, norm in net.named_modules() if any(parameter.is_meta for parameter in net.parameters()) else ():
        starts = hasattr(norm, "reset_parameters") or not is_norm(norm) or not list(norm.parameters())
        require(starts, f"norm: {name} has parameters and no reset_parameters(), by which trainer=fsdp starts them")


def shard(net: nn.Module, mesh: DeviceMesh, precision: str, seed: int) -> None:
    """Divides `net` in place, block by block, unless that is done: a device holds its part, and one block at a time.

    A net on the "meta" device then draws its weights from `seed`. Under bf16-mixed the weights that autocast makes 16
    bits wide travel so; all others stay fp32, alpha among them.
    """
    if isinstance(net, FSDPModule):
        return
    policy = _narrow_weights(net) if precision == "bf16-mixed" else MixedPrecisionPolicy()
    for part in (*getattr(net, "blocks", ()), net):
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    if any(parameter.is_meta for parameter in net.parameters()):
        net.to_empty(device=mesh.device_type)
        torch.manual_seed(seed)
        net.init_weights()  # type: ignore[operator]


def _narrow_weights(net: nn.Module) -> MixedPrecisionPolicy:
    layers = [module for module in net.modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)]
    embeddings = {id(module.weight) for module in net.modules() if isinstance(module, nn.Embedding)}
    narrow = {id(layer.weight) for layer in layers} - embeddings
    return MixedPrecisionPolicy(
        param_dtype=torch.bfloat16,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
        param_dtype_override_fn=lambda parameter: None if id(parameter) in narrow else parameter.dtype,
    )


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor of which every process holds a part; all of them must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
    """Returns whether torchrun, SLURM or another launcher started this process."""
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


WEIGHTS = "state_dict."
PATHS = ("PosixPath", "WindowsPath")
HARMLESS = {  # of the modules that an index names, by what it needs of them
    "pathlib": PATHS,
    "pathlib._local": PATHS,
    "torch": ("Size",),
    "torch.serialization": ("_get_layout",),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.distributed.checkpoint.metadata": (
        *("BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta"),
        *("TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
    ),
}


def read_shards(folder: Path, device: str) -> dict[str, Any]:
    """The checkpoint as one file would hold it, without the optimiser's states; tensors whole, on `device`.

    Raises:
        OSError, UnpicklingError, ...: files are missing or damaged.
    """
    checkpoint = torch.load(folder / "meta.pt", weights_only=True, map_location=device)
    index = _index(folder)
    for shard in {place.relative_path for place in index.storage_data.values()}:
        (folder / shard).stat()
    weights = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype, device=device)
        for key, entry in index.state_dict_metadata.items()
        if key.startswith(WEIGHTS) and isinstance(entry, TensorStorageMetadata)
    }
    if device != "meta":
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # that there is one process
                dcp.load(weights, checkpoint_id=folder, no_dist=True)
        except CheckpointException as error:  # not an Exception
            raise OSError(f"{folder}: {error}") from error
    return checkpoint | {"state_dict": {key.removeprefix(WEIGHTS): tensor for key, tensor in weights.items()}}


def _index(folder: Path) -> Metadata:
    """Returns the index of a sharded checkpoint, unpickled with the harmless classes only."""
    with (folder / ".metadata").open("rb") as file:
        index = _Unpickler(file).load()
    if not isinstance(index, Metadata):
        raise pickle.UnpicklingError(f"{folder}: no checkpoint")
    return index


class _Unpickler(pickle.Unpickler):
    """Makes what describes tensors and nothing else, as torch.load does under `weights_only`."""

    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if dtype or name in HARMLESS.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} in a checkpoint")
