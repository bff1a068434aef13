"""Trained nets that timm knows, or that lie in a file as timm names their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import load_state_dict
from torch import nn

from ...errors import UsageError, require
from .model import KEYS

PREFIX = "timm/"


def pretrained(weights: str, model: Mapping[str, Any]) -> nn.Module:
    """timm's net with its own norms, for images of the size of ours.

    Args:
        weights: timm/<name>, whose weights timm fetches or has fetched; or a file (safetensors or torch.save) with
            those of the architecture that `model` describes. The number of classes is theirs.
        model: the section of the config.

    Raises:
        UsageError: no such weights, or they do not fit.
    """
    images = {"img_size": model["img_size"], "in_chans": model["in_chans"]}
    if weights.startswith(PREFIX):
        name = weights.removeprefix(PREFIX)
        known = timm.is_model(name)
        require(known, f"init.weights={weights}: timm has no such model; timm.list_models(pretrained=True) has them")
        try:
            return timm.create_model(name, pretrained=True, **images)
        except Exception as error:  # of any kind, from timm, its hub and the network
            cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UsageError(f"init.weights={weights}: timm cannot load it ({cause[:200]})") from error
    file = Path(weights).expanduser()
    expected = "a run, a checkpoint, a file of weights or timm/<name>"
    require(file.is_file(), f"init.weights={weights}: there is nothing; expected {expected}")
    arch = {key: value for key, value in model.items() if key not in (*KEYS, "kwargs")} | dict(model["kwargs"] or {})
    try:
        state = load_state_dict(str(file))
        head = state.get("head.weight")
        classes = model["num_classes"] if head is None else len(head)
        net = timm.create_model(model["name"], num_classes=classes, **images, **arch)
        net.load_state_dict(state)
    except Exception as error:  # of any kind, from three libraries
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"init.weights={weights}: no weights of this net as timm has it ({cause[:200]})") from error
    return net
