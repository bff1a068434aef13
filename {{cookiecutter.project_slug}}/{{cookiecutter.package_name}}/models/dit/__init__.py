"""Diffusion transformers for image generation."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ...config import plain
from ...data import Kind, get_kind
from ...utils import stamp
from ..family import Family, Script
from . import objectives
from .model import build as build_model
from .module import DiTModule
from .quality import Quality
from .sample import OPTIONS as SAMPLE_OPTIONS
from .sample import sample as run_sample
from .samples import Samples


def build_module(model: nn.Module, cfg: DictConfig, **base: Any) -> DiTModule:
    """Returns the LightningModule of `cfg`, whose model was made for the data's images and classes.

    Raises:
        ValueError: a section `task` that does not go with the data or the objective.
    """
    data, task = plain(cfg.data), plain(cfg.task)
    objective, kind, quality = objectives.build(**plain(cfg.objective)), get_kind(data["module"]), task["quality"]
    assert kind.pixels is not None
    if quality["n"] and not kind.shows_pixels(data):
        raise ValueError(f"quality.n={quality['n']}: these data are not decoded to images; set their vae, or take n=0")
    objectives.check_sampler(objective, quality["steps"], quality["sampler"])
    objectives.check_sampler(objective, task["samples"]["steps"], "")
    pixels, shape = kind.pixels(data), (cfg.data.in_chans, cfg.data.img_size, cfg.data.img_size)
    measure = Quality(pixels, shape, **quality, cache=_statistics_file(cfg.runs, kind, data, quality))
    monitors = ["val/loss", *([f"val/{measure.name}"] if measure.n and measure.validate else [])]
    if task["monitor"] not in monitors or task["monitor_mode"] != "min":
        found = f"monitor={task['monitor']}, monitor_mode={task['monitor_mode']}"
        raise ValueError(f"{found}: choose {' or '.join(monitors)}, and min")
    callbacks = [measure, Samples(pixels, **task["samples"])]
    return DiTModule(model, objective, shape, cfg.model.num_classes, task["label_dropout"], callbacks, **base)


def example_batch(cfg: DictConfig, samples: int) -> tuple[Tensor, Tensor]:
    """Returns images or latents (B, C, H, W) and their classes (B,)."""
    images = torch.randn(samples, cfg.model.in_chans, cfg.model.img_size, cfg.model.img_size)
    return images, torch.randint(cfg.model.num_classes, (samples,))


def _statistics_file(runs: str, kind: Kind, data: Mapping[str, Any], quality: Mapping[str, Any]) -> Path | None:
    """Returns the file of the training images' statistics, named by all that they depend on but image files."""
    if not quality["n"] or quality["features"] == "pixels":  # pixels are faster measured than read
        return None
    ignored = ("augment", "batch_size", "download", "hflip", "mixup", "pin_memory", "total_batch_size", "workers")
    settings = {key: value for key, value in data.items() if key not in ignored}
    weights = Path(quality["weights"]).expanduser()
    state = [kind.identity(data), stamp(weights) if weights.is_file() else None]
    text = json.dumps([settings, state, quality["features"], quality["weights"]], sort_keys=True)
    return Path(runs) / ".statistics" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.pt"


FAMILY = Family(
    name="dit",
    build_model=build_model,
    build_module=build_module,
    example_batch=example_batch,
    example_data=["data=latents", "data.img_size=32", "data.in_chans=4", "data.num_classes=1000"],
    example_samples=64,
    init_on_device=True,
    sample=Script(run_sample, SAMPLE_OPTIONS),
)
