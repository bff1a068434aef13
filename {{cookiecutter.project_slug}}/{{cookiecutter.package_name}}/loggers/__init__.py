"""Loggers beside TensorBoard and metrics.csv."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from ..errors import UsageError


def extra_logger(name: str, run_dir: Path, settings: dict[str, Any]) -> Logger:
    """Returns the logger of `configs/logger/<name>.yaml`."""
{%- if cookiecutter.logger == "wandb" %}
    if name == "wandb":
        from .wandb import build

        return build(run_dir, settings)
{%- endif %}
    raise UsageError(f"logger.name={name}: there is no such logger")
