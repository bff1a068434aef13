"""The interface between a model family and the rest of the project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..cli import Options

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import Tensor, nn

    from .base import BaseModule


@dataclass(frozen=True)
class Script:
    """A function behind a script that takes a checkpoint, such as sample.py, and the options of its command line."""

    run: Callable[..., Any]
    options: Options


@dataclass(frozen=True)
class Family:
    """A family of models: the functions that training, tools and scripts call.

    Args:
        name: of the family, its folder in `models/` and its file in `configs/task/`.
        build_model: `build_model(norm_layer, device=None, **section_model)` returns the network.
        build_module: `build_module(model, cfg, **base)` returns the LightningModule.
        example_batch: `example_batch(cfg, samples)` returns a batch of noise, for benchmark.py.
        example_data: overrides that stand for data in benchmark.py where none are named.
        example_samples: samples per batch that suit a GPU there.
        init_on_device: the model has `init_weights()`, so that FSDP can build it on "meta" and draw it in shards.
        resized: layers that `init=` starts anew where they have another size.
        pretrained: `pretrained(name, section_model)` returns the trained network that `init=` names.
        sample, export, predict: scripts of the same names.
        shift_metric: the metric that `evaluate.py shift=` follows, and "max" or "min".
    """

    name: str
    build_model: Callable[..., nn.Module]
    build_module: Callable[..., BaseModule]
    example_batch: Callable[[DictConfig, int], tuple[Tensor, Tensor]]
    example_data: Sequence[str]
    example_samples: int
    init_on_device: bool = False
    resized: Sequence[str] = ()
    pretrained: Callable[[str, Mapping[str, Any]], nn.Module] | None = None
    sample: Script | None = None
    export: Script | None = None
    predict: Script | None = None
    shift_metric: tuple[str, str] | None = None
