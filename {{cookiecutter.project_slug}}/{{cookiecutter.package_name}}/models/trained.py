"""Networks with trained weights, without Lightning, whose import takes seconds that a sample need not wait."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import nn

from ..config import plain
from ..config.errors import UsageError, require
from ..norms import make_norm
from ..runs import load_checkpoint

DTYPES = {"64": torch.float64, "bf16": torch.bfloat16, "16": torch.float16}
Build = Callable[..., nn.Module]  # build(norm_layer, device=None, **section_model)


def build_from(build: Build, cfg: DictConfig, device: torch.device | str | None = None) -> nn.Module:
    """Returns the network of a family's `build`, drawn from the run's seed; on the "meta" device it takes no memory.

    Raises:
        ValueError: values that do not fit together.
    """
    options = {key: value for key, value in plain(cfg.norm).items() if key not in ("name", "normalizes")}
    torch.manual_seed(cfg.seed)
    return build(partial(make_norm, name=cfg.norm.name, **options), device=device, **plain(cfg.model))


def trained_model(build: Build, cfg: DictConfig, checkpoint: Path) -> nn.Module:
    """Returns the network of a checkpoint, the moving average where it has one, in evaluation mode.

    Raises:
        UsageError: the weights do not fit.
    """
    model = build_from(build, cfg)
    weights = load_checkpoint(checkpoint, "cpu")["state_dict"]
    ours = "ema." if any(name.startswith("ema.") for name in weights) else "model."
    try:
        model.load_state_dict({name.removeprefix(ours): one for name, one in weights.items() if name.startswith(ours)})
    except RuntimeError as error:
        raise UsageError(f"{checkpoint}: its weights do not fit this model; was the code changed?") from error
    return model.eval()


def class_names(checkpoint: Path, number: int) -> list[str]:
    """Returns the names of the classes of a checkpoint's data; their numbers if they have no names."""
    saved = load_checkpoint(checkpoint)
    states = [saved[kind] for kind in ("Images", "Latents") if kind in saved]  # of the data module
    return list(states[0]["class_names"]) if states else [str(one) for one in range(number)]


def set_precision(model: nn.Module, precision: str | int | None) -> torch.dtype | None:
    """Casts `model` in place if the trainer's `precision` is a "true" one; else returns the dtype to autocast to."""
    kind, _, how = str(precision).partition("-")
    dtype = DTYPES.get(kind)
    if dtype is not None and (how == "true" or kind == "64"):
        model.to(dtype)
        return None
    return dtype


def find_device(name: str) -> torch.device:
    """Returns the device called `name`, as in cuda:1; "auto" is the accelerator if there is one.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        found = torch.empty(0, device=name).device
    except (AssertionError, ImportError, RuntimeError) as error:  # by the kind of device
        raise UsageError(f"device={name}: PyTorch finds no such device here; auto takes what there is") from error
    require(found.type != "meta", f"device={name}: it computes nothing; auto takes what there is")
    return found
