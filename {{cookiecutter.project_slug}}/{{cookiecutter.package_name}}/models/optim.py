"""Parameter groups and learning-rate schedules, for every family."""

import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import nn

from ..config.entries import load_class
from ..norms import PointwiseNorm


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, alpha_lr_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Returns groups for the optimiser: weights decay; vectors (biases, norms) and scalars of point-wise norms do not.

    The group "hidden" has the matrices of the model's `blocks`, "weights" the other weights, "alpha" the scalars, with
    an lr of their own. Frozen parameters and empty groups are left out.
    """
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in ("hidden", "weights", "vectors", "alpha")}
    pointwise = [norm for norm in model.modules() if isinstance(norm, PointwiseNorm)]
    scalars = {id(getattr(norm, name)) for norm in pointwise for name in norm.scalars}
    blocks = getattr(model, "blocks", None)
    hidden = {id(parameter) for parameter in blocks.parameters()} if isinstance(blocks, nn.Module) else set()
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in scalars:
            name = "alpha"
        elif parameter.ndim < 2:
            name = "vectors"
        else:
            name = "hidden" if parameter.ndim == 2 and id(parameter) in hidden else "weights"
        groups[name].append(parameter)
    return [
        {
            "name": name,
            "params": params,
            "lr": lr * (alpha_lr_factor if name == "alpha" else 1.0),
            "weight_decay": weight_decay if name in ("hidden", "weights") else 0.0,
        }
        for name, params in groups.items()
        if params
    ]


def make_optimizer(model: nn.Module, optim: Mapping[str, Any], fused: bool) -> torch.optim.Optimizer:
    """Returns the optimiser of section `optim`.

    Args:
        fused: uses the optimiser's fused kernels if it has some.
    """
    found = load_class({"class_path": optim["class_path"]})
    options = {"lr": optim["lr"], **optim["init_args"]}
    if "betas" in optim and "betas" in signature(found).parameters:  # a task may set them for AdamW
        options["betas"] = tuple(optim["betas"])
    if "fused" in signature(found).parameters:
        options.setdefault("fused", fused)
    groups = parameter_groups(model, optim["lr"], optim["weight_decay"], optim["alpha_lr_factor"])
    optimizer: torch.optim.Optimizer = found(groups, **options)
    return optimizer


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon (arXiv 2502.16982) for the group "hidden", its AdamW for all others, as one optimiser.

    Muon's updates are scaled to the size of AdamW's, so that one learning rate suits both.

    Args:
        groups: of `parameter_groups`.
        lr: of both.
        betas: of AdamW.
        muon: more arguments of Muon.

    Raises:
        ValueError: there is no group "hidden".
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.95), **muon: Any
    ) -> None:
        hidden = [group for group in groups if group["name"] == "hidden"]
        others = [group for group in groups if group["name"] != "hidden"]
        if not hidden or not others:
            raise ValueError("Muon needs a model with blocks that hold matrices, and parameters elsewhere")
        self.parts = (
            torch.optim.Muon(hidden, lr=lr, **{"adjust_lr_fn": "match_rms_adamw", **muon}),
            torch.optim.AdamW(others, lr=lr, betas=betas),
        )
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Makes a step of both, after the closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Gives both parts the groups and the states of this optimiser."""
        for part, muon in zip(self.parts, (True, False), strict=True):
            part.param_groups = [group for group in self.param_groups if (group["name"] == "hidden") == muon]
            part.state = self.state


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
