"""Parameter groups and learning-rate schedules, for every family."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from ..norms import PointwiseNorm


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, alpha_lr_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Returns groups for the optimiser: weights decay; vectors (biases, norms) and scalars of point-wise norms do not.

    The scalars are the group "alpha", with an lr of their own. Frozen parameters and empty groups are left out.
    """
    weights: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    scalars: list[nn.Parameter] = []
    pointwise = [norm for norm in model.modules() if isinstance(norm, PointwiseNorm)]
    in_curves = {id(getattr(norm, name)) for norm in pointwise for name in norm.scalars}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in in_curves:
            scalars.append(parameter)
        else:
            (weights if parameter.ndim >= 2 else vectors).append(parameter)
    groups = [
        {"name": "weights", "params": weights, "lr": lr, "weight_decay": weight_decay},
        {"name": "vectors", "params": vectors, "lr": lr, "weight_decay": 0.0},
        {"name": "alpha", "params": scalars, "lr": lr * alpha_lr_factor, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def cosine(progress: float) -> float:
    """Returns half a cosine, from 1 to 0 for progress from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """Returns 1."""
    return 1.0


def wsd(progress: float, decay: float = 0.2) -> float:
    """Returns 1 until the last share `decay` of training, then linearly down to 0 (arXiv 2404.06395)."""
    return min(1.0, (1 - progress) / decay)


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "constant": constant, "wsd": wsd}


def lr_factor(
    total: int, name: str, warmup_share: float, warmup_steps: int, final_factor: float
) -> Callable[[int], float]:
    """Returns the factor on the lr at a step: linear warm-up, then the schedule `name` down to `final_factor`.

    Args:
        total: optimiser steps of the whole training, warm-up included.
        warmup_share, warmup_steps: length of the warm-up, as a share of `total` or, if not 0, in steps.

    Raises:
        ValueError: the warm-up is as long as the training.
    """
    warmup = warmup_steps or round(warmup_share * total)
    if warmup >= total:
        raise ValueError(f"a warm-up of {warmup} steps leaves nothing of a training of {total}; shorten it")
    shape = SCHEDULES[name]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return final_factor + (1 - final_factor) * shape(progress)

    return factor
