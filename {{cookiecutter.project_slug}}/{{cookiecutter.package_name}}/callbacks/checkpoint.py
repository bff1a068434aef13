"""The best and the last state of a run, in files that are never half written."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from ..config.errors import Diverged
from ..utils import replace
from .resume import interval_ended


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the file of its name, and replaces that once the new one is on the disk.

    Lightning writes to the folder for temporary files and moves the file from there, which is a copy if that is
    another file system: a kill or a full disk then loses the old checkpoint too.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        def write(temporary: Path) -> None:
            try:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
            except RuntimeError as error:  # by which torch hides that of a full disk
                if isinstance(cause := error.__context__, OSError):
                    raise OSError(cause.errno, cause.strerror, str(path)) from error
                raise

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace(Path(path), write)


class BestCheckpoint(ModelCheckpoint):
    """Saves `best.ckpt`, by the metric `monitor`, when a validation ends.

    A run whose directory was moved or copied keeps its best score, and its own file.

    Args:
        options: of ModelCheckpoint, for subclasses.
    """

    def __init__(self, folder: Path, monitor: str | None, mode: str, filename: str = "best", **options: Any) -> None:
        super().__init__(
            folder,
            filename,
            monitor=monitor,
            mode=mode,
            auto_insert_metric_name=False,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
            **options,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        old, new = str(state_dict["dirpath"]), str(self.dirpath)

        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {moved(key): one for key, one in value.items()}
            return value.replace(old, new, 1) if isinstance(value, str) else value

        super().load_state_dict({key: moved(value) for key, value in state_dict.items()})


class TopCheckpoints(BestCheckpoint):
    """Keeps the `save_top_k` best checkpoints, as `step<n>.ckpt`."""

    def __init__(self, folder: Path, monitor: str, mode: str, save_top_k: int) -> None:
        super().__init__(folder, monitor, mode, "step{step}", save_top_k=save_top_k)


class AllCheckpoints(BestCheckpoint):
    """Keeps every checkpoint, as `step<n>.ckpt`: one a validation, or one each `every_n_steps` if not 0."""

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        super().__init__(folder, None, "min", "step{step}", save_top_k=-1, every_n_train_steps=every_n_steps or None)


class LastCheckpoint(ModelCheckpoint):
    """Saves `last.ckpt` at every validation and at the end of training, every `every_n_steps` if not 0, and on errors.

    It saves nothing on an error before the first step, when optimiser and counters may be half restored; within an
    optimiser step, when the weights are ahead of the counters; on one of several ranks alone, because saving waits for
    the others; and when training has diverged.
    """

    def __init__(self, folder: Path, every_n_steps: int = 0) -> None:
        super().__init__(
            folder, "last", every_n_train_steps=every_n_steps, every_n_epochs=0, enable_version_counter=False
        )
        self._consistent = False  # weights, optimiser and counters are those of one step of the training

    def state_dict(self) -> dict[str, Any]:
        return {}  # there is one file, always the same

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._consistent = trainer.global_step > 0

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self._consistent = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._consistent = True
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if interval_ended(trainer):
            self._save_checkpoint(trainer, self._file)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save_checkpoint(trainer, self._file)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._consistent = False  # the test loads other weights

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        all_ranks = trainer.world_size == 1 or isinstance(exception, KeyboardInterrupt)
        if self._consistent and all_ranks and not isinstance(exception, Diverged):
            self._save_checkpoint(trainer, self._file)

    @property
    def _file(self) -> str:
        return str(Path(str(self.dirpath)) / "last.ckpt")
