"""A checkpoint that says how it was made."""

from typing import Any

import lightning as L


class ConfigRecord(L.Callback):
    """Stores the config under `config` in every checkpoint, as plain dicts, so that `weights_only=True` can load it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config
