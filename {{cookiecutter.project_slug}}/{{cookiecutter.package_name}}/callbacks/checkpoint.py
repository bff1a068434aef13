"""The best and the last state of a run."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..config.errors import Diverged
from .resume import interval_ended


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`, by `monitor`, looked at when a validation ends.

    A run whose directory was moved or copied keeps its best score, and its own file.
    """

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(
            folder, "best", monitor=monitor, mode=mode, save_on_train_epoch_end=False, enable_version_counter=False
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        was, now = str(state_dict["dirpath"]), str(self.dirpath)

        def here(value: Any) -> Any:
            if isinstance(value, dict):
                return {here(key): one for key, one in value.items()}
            return value.replace(was, now, 1) if isinstance(value, str) else value

        super().load_state_dict({key: here(value) for key, value in state_dict.items()})


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`, at every validation and the end of training, every `every_n_steps` if not 0, and when it breaks off.

    Not when a run breaks off before its first step: optimiser and counters may be half restored then. Nor when one of
    several ranks does: saving waits for the others, and they wait in their next all-reduce. Nor when it has diverged.
    """

    def __init__(self, folder: Path, every_n_steps: int = 0) -> None:
        super().__init__(
            folder, "last", every_n_train_steps=every_n_steps, every_n_epochs=0, enable_version_counter=False
        )
        self._training = False

    def state_dict(self) -> dict[str, Any]:
        return {}  # there is one file, always the same: nothing to remember

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._training = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._training = False  # the test puts other weights into the net

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if interval_ended(trainer):
            self._save_checkpoint(trainer, self._file)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save_checkpoint(trainer, self._file)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        all_ranks = trainer.world_size == 1 or isinstance(exception, (KeyboardInterrupt, SIGTERMException))
        if self._training and trainer.global_step and all_ranks and not isinstance(exception, Diverged):
            self._save_checkpoint(trainer, self._file)

    @property
    def _file(self) -> str:
        return str(Path(str(self.dirpath)) / "last.ckpt")
