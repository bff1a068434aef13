"""Models that start from trained weights, whose norms may have been others, or from data: section `init`."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import nn

from ..cli import shown
from ..config import plain, recompose
from ..config.errors import UsageError, require
from ..data.base import DataModule
from ..distributed import this_device
from ..norms import PointwiseNorm, alpha_from_data_
from ..norms.transfer import Distance, copy_, distance, fit_norms_, outputs_of, standing_in
from ..runs import saved_checkpoint
from ..utils import evaluating
from . import get_family
from .base import BaseModule
from .trained import trained_model

SAME = 1e-3  # relative difference of outputs that rounding may make


@torch.no_grad()
def initialise_(task: BaseModule, cfg: DictConfig, data: DataModule) -> dict[str, Distance]:
    """Gives the model of `task` the weights that `init.weights` names, and prints how far from them it is then.

    Norms of the same kind are copied, others fitted or left as they start. Every device does all of it by itself, on
    the same samples.

    Returns:
        Distances of the outputs from the old model's, with fresh and with calibrated norms, on validation samples.

    Raises:
        UsageError: no such weights, or those of a model that differs in more than its norms.
    """
    weights = str(cfg.init.weights)
    old, hint = source(weights, cfg)
    try:
        norms, resized, distances = _transfer_(task, cfg, data, old)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"init.weights={weights}: {error}{hint}") from error
    if task.ema is not None:
        task.ema.load_state_dict(task.model.state_dict())
    say = rank_zero_only(print)
    begun = f"; {', '.join(resized)}: of another size there, starts anew" if resized else ""
    say(f"init      the weights of {weights}, {len(norms) or 'no'} norms replaced{begun}")
    for kind, far in distances.items() if norms else ():
        say(f"          {kind} norms: {far}")
    return distances


def _transfer_(
    task: BaseModule, cfg: DictConfig, data: DataModule, old: nn.Module
) -> tuple[list[str], list[str], dict[str, Distance]]:
    """Returns the names of the replaced norms and of the layers of another size, and the distances."""
    norms, resized = copy_(task.model, old, get_family(cfg.task.name).resized)
    fits = cfg.init.norms == "calibrated"
    if fits and not all(isinstance(task.model.get_submodule(name), PointwiseNorm) for name in norms):
        raise ValueError(f"norm={cfg.norm.name} is not point-wise and cannot be fitted; take init.norms=fresh")
    device = this_device(cfg.trainer)
    model, old = task.model.to(device), old.to(device)
    seen = _inputs(task, data, "train", cfg.init.samples, device)
    unseen = _inputs(task, data, "val", cfg.init.samples, device) if data.sizes["val"] else seen
    batches = list(zip(*(one.split(data.batch_size) for one in unseen), strict=True))
    with evaluating(model), evaluating(old):
        with standing_in(model, old, [*norms, *resized]):
            if not distance(model, old, batches[:1], task.classifies).relative < SAME:
                raise ValueError("that model computes something else with the same weights")
        with standing_in(model, old, resized):
            distances = {"fresh": distance(model, old, batches, task.classifies)}
            if norms and fits:
                fit_norms_(model, outputs_of(old, {name: model.get_submodule(name) for name in norms}, seen), seen)
                distances["calibrated"] = distance(model, old, batches, task.classifies)
    model.to("cpu")
    return norms, resized, distances


def start_alphas_(task: BaseModule, cfg: DictConfig, data: DataModule) -> None:
    """Starts every alpha of the model from the scale of its norm's input on `init.samples` training samples.

    Every device does so by itself, on the same samples.

    Raises:
        ValueError: the model has no alpha, or an input that is not finite.
    """
    device = this_device(cfg.trainer)
    model = task.model.to(device)
    with evaluating(model):
        alphas = alpha_from_data_(model, _inputs(task, data, "train", cfg.init.samples, device))
    model.to("cpu")
    if task.ema is not None:
        task.ema.load_state_dict(model.state_dict())
    rank_zero_only(print)(f"init      alphas from data: {min(alphas.values()):.3g} to {max(alphas.values()):.3g}")


def source(weights: str, cfg: DictConfig) -> tuple[nn.Module, str]:
    """Returns the model that `init.weights` names, and a hint about its config for where it turns out to differ.

    The name is that of a run or checkpoint, or one that the family's `pretrained` knows.

    Raises:
        UsageError: there is no such model.
    """
    path, family = Path(weights).expanduser(), cfg.task.name
    if path.suffix == ".ckpt" or (path / "config.yaml").is_file() or (path / "meta.pt").is_file():
        file, config = saved_checkpoint(path, "init.weights")
        theirs, model = config["task"]["name"], plain(cfg.model)
        require(theirs == family, f"init.weights={weights}: it is of task={theirs}, and this is task={family}")
        other = [f"model.{key}={shown(value)}" for key, value in config["model"].items() if model.get(key) != value]
        hint = f"; it was trained with {' '.join(other)}" if other else ""
        return trained_model(get_family(family).build_model, recompose(config, [], anew=(), free=()), file), hint
    pretrained = get_family(family).pretrained
    if pretrained is None:
        raise UsageError(f"init.weights={weights}: there is no run and no checkpoint")
    try:
        return pretrained(weights, plain(cfg.model)), ""
    except ValueError as error:
        raise UsageError(f"init.weights={weights}: {error}") from error


def _inputs(task: BaseModule, data: DataModule, split: str, number: int, device: torch.device) -> tuple[Any, ...]:
    return tuple(one.to(device) for one in task.model_inputs(data.some(split, number)))
