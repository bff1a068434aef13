"""Weights & Biases beside TensorBoard."""

import secrets
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only


def build(run_dir: Path, settings: dict[str, Any]) -> WandbLogger:
    return WandbLogger(
        project=settings["project"] or run_dir.resolve().parents[1].name,
        entity=settings["entity"],
        offline=settings["offline"],
        name=run_dir.name,
        id=run_id(run_dir),
        save_dir=run_dir,
        resume="allow",
    )


@rank_zero_only
def run_id(run_dir: Path) -> str | None:
    """The run's id on the server, from `wandb_id.txt`, so that a resumed run goes on there; made where it is missing.

    It is random, because two machines may both have a run directory of this name. None in all processes but the first.
    """
    file = run_dir / "wandb_id.txt"
    if not file.exists():
        file.write_text(f"{secrets.token_hex(8)}\n", encoding="utf-8")
    return file.read_text(encoding="utf-8").strip()
