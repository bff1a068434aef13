"""A net that starts from the weights of a trained one, whose norms may have been others: section `init`."""

from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import nn

from ..cli import shown
from ..config import plain, recompose
from ..data.base import DataModule
from ..distributed import this_device
from ..errors import UsageError, require
from ..norms import PointwiseNorm
from ..norms.transfer import Distance, Inputs, copy_, distance, fit_norms_, standing_in
from ..runs import saved_checkpoint
from ..utils import evaluating
from . import get_family
from .base import BaseModule
from .build import trained_model

NORMS = ("calibrated", "fresh")
SAME = 1e-3  # relative difference of outputs that rounding may make


@torch.no_grad()
def initialise_(task: BaseModule, cfg: DictConfig, data: DataModule) -> dict[str, Distance]:
    """Gives the net of `task` the weights that `init.weights` names, and prints how far from them it is then.

    Norms that are the same are copied, others fitted or left as they start. Every device does all of it by itself, on
    the same samples.

    Returns:
        Distances of the outputs from the old net's, with fresh and with calibrated norms, on samples to validate on.

    Raises:
        UsageError: no such weights, or those of a net that differs in more than its norms.
    """
    weights, how = str(cfg.init.weights), cfg.init.norms
    require(how in NORMS, f"init.norms={how}: choose {' or '.join(NORMS)}")
    require(cfg.init.samples >= 1, f"init.samples={cfg.init.samples}: expected at least 1")
    old, hint = source(weights, cfg)
    norms, anew = copy_(task.model, old, get_family(cfg.task.name).resized, f"init.weights={weights}: ", hint)
    fits = how == "fresh" or all(isinstance(task.model.get_submodule(name), PointwiseNorm) for name in norms)
    require(fits, f"init.norms=calibrated: it fits point-wise norms, and norm={cfg.norm.name} is none; take fresh")

    device = this_device(cfg.trainer)
    net, old = task.model.to(device), old.to(device)
    seen = _inputs(task, data, "train", cfg.init.samples, device)
    unseen = _inputs(task, data, "val", cfg.init.samples, device) if data.sizes["val"] else seen
    batches = list(zip(*(one.split(data.batch_size) for one in unseen), strict=True))
    with evaluating(net), evaluating(old):
        with standing_in(net, old, [*norms, *anew]):
            off = distance(net, old, batches[:1], task.classifies).relative
            require(off < SAME, f"init.weights={weights}: that net computes something else with the same weights{hint}")
        with standing_in(net, old, anew):
            distances = {"fresh": distance(net, old, batches, task.classifies)}
            if norms and how == "calibrated":
                fit_norms_(net, old, norms, seen)
                distances["calibrated"] = distance(net, old, batches, task.classifies)
    net.to("cpu")
    if task.ema is not None:
        task.ema.load_state_dict(net.state_dict())
    tell = rank_zero_only(print)
    begun = f"; {', '.join(anew)}: of another size there, starts anew" if anew else ""
    tell(f"init      the weights of {weights}, {len(norms) or 'no'} norms replaced{begun}")
    for kind, far in distances.items() if norms else ():
        tell(f"          {kind} norms: {far}")
    return distances


def source(weights: str, cfg: DictConfig) -> tuple[nn.Module, str]:
    """The net that `init.weights` names, and what to say of its config where it turns out to differ.

    It is that of a run or checkpoint, or what `pretrained` of models/<family>/pretrained.py makes of the name.

    Raises:
        UsageError: there is no such net.
    """
    path, family = Path(weights).expanduser(), cfg.task.name
    if path.suffix == ".ckpt" or (path / "config.yaml").is_file() or (path / "meta.pt").is_file():
        file, config = saved_checkpoint(path, "init.weights")
        theirs, model = config["task"]["name"], plain(cfg.model)
        require(theirs == family, f"init.weights={weights}: it is of task={theirs}, and this is task={family}")
        other = [f"model.{key}={shown(value)}" for key, value in config["model"].items() if model.get(key) != value]
        hint = f"; it was trained with {' '.join(other)}" if other else ""
        return trained_model(recompose(config, [], anew=(), free=()), file), hint
    pretrained = get_family(family).pretrained
    if pretrained is None:
        raise UsageError(f"init.weights={weights}: there is no run and no checkpoint")
    try:
        return pretrained(weights, plain(cfg.model)), ""
    except ValueError as error:
        raise UsageError(f"init.weights={weights}: {error}") from error


def _inputs(task: BaseModule, data: DataModule, split: str, number: int, device: torch.device) -> Inputs:
    return tuple(one.to(device) for one in task.model_inputs(data.some(split, number)))
