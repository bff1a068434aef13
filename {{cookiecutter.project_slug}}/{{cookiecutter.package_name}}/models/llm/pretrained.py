"""Trained LLaMAs in Hugging Face's format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import require
from .huggingface import load_hf
from .model import Llama


def pretrained(weights: str, model: Mapping[str, Any]) -> Llama:
    """The net of a folder that `transformers` or export.py wrote.

    Raises:
        UsageError: no such folder, or a model that ours does not compute.
    """
    folder = Path(weights).expanduser()
    expected = "a run, a checkpoint, or a folder that transformers wrote"
    require(folder.is_dir(), f"init.weights={weights}: there is nothing; expected {expected}")
    return load_hf(folder)
