"""Weights & Biases beside TensorBoard."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger


def build(run_dir: Path, settings: dict[str, Any]) -> WandbLogger:
    """The run's id is its directory's name, so that a resumed run goes on there."""
    return WandbLogger(
        project=settings["project"] or run_dir.resolve().parents[1].name,
        entity=settings["entity"],
        offline=settings["offline"],
        name=run_dir.name,
        id=run_dir.name,
        save_dir=run_dir,
        resume="allow",
    )
