"""The config of a run, in its files."""

from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import OmegaConf


class ConfigRecord(L.Callback):
    """Stores the config in every checkpoint, as plain dicts under `config`, and in the run directory as `config.yaml`.

    The file is written once training starts: a resume that is refused leaves the one that was there.
    """

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self.config, self.folder = config, folder

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            (self.folder / "config.yaml").write_text(OmegaConf.to_yaml(self.config), encoding="utf-8")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config
