"""Parameter groups and learning-rate schedules, for every family."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from ..config.errors import UsageError
from ..norms import PointwiseNorm


def parameter_groups(
    net: nn.Module, lr: float, weight_decay: float, alpha_lr_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for the optimiser: weights decay, vectors (biases, norms) do not, nor do the scalars of point-wise norms.

    The rule is the papers': no decay for parameters of one dimension. The scalars are the group "alpha", with an lr of
    their own. Frozen parameters are left out, empty groups too.
    """
    weights: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    scalars: list[nn.Parameter] = []
    pointwise = [norm for norm in net.modules() if isinstance(norm, PointwiseNorm)]
    in_curves = {id(getattr(norm, name)) for norm in pointwise for name in norm.scalars}
    for parameter in net.parameters():
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
    """From 1 to 0 along half a cosine, for progress from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def wsd(progress: float, decay: float = 0.2) -> float:
    """Warm-up, stable, decay (arXiv 2404.06395): 1 until the last `decay` of training, then linearly to 0."""
    return min(1.0, (1 - progress) / decay)


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "constant": constant, "wsd": wsd}


def lr_factor(name: str, total: int, warmup: int, final_factor: float) -> Callable[[int], float]:
    """The factor on the lr at a step: linear warm-up to 1 over `warmup` steps, then `name` down to `final_factor`.

    Args:
        total: optimiser steps of the whole training, warm-up included.
    """
    if warmup >= total:
        raise UsageError(
            f"schedule: a warm-up of {warmup} steps leaves nothing of a training of {total}; "
            "lower schedule.warmup_steps or schedule.warmup_share"
        )
    shape = SCHEDULES[name]

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return final_factor + (1 - final_factor) * shape(progress)

    return factor
