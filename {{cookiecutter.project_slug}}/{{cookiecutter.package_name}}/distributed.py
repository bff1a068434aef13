"""FSDP2: weights, gradients and the optimiser's states divided over the processes, and checkpoints in shards."""

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from .errors import require
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
                    pl_module.eval_net(*pl_module.watched_inputs(batch))  # type: ignore[operator]

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


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which every process holds a part; all of them must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
