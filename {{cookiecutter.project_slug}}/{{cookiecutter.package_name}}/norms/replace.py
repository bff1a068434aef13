"""Other norms in a model that was built with LayerNorms or RMSNorms."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .maps import channels_first
from .pointwise import PointwiseNorm
from .registry import make_norm
from .transfer import Inputs, fit_norms_, outputs_of

# those of torch, timm, torchvision and transformers, such as LlamaRMSNorm; a 2d is over channels-first maps
NORM_CLASS = re.compile(r"\w*(LayerNorm|RMSNorm|RmsNorm|SimpleNorm)(2d)?(Fp32)?")


def replace_norms(
    model: nn.Module,
    norm: str | type[nn.Module],
    which: type[nn.Module] | tuple[type[nn.Module], ...] | str | None = None,
    calibrate: Inputs | Mapping[str, Any] | None = None,
    **options: Any,
) -> list[str]:
    """Replaces norms in any model, in place, and returns their names.

    The new ones have the device, dtype, training mode and `requires_grad` of the old ones. Weight and bias are copied
    where both have them.

    Args:
        norm: a name that `make_norm` knows, or a class that could be registered.
        which: classes, or a regular expression for whole names of modules, as in "layers.*norm"; None: all
            LayerNorms and RMSNorms of torch, timm and transformers.
        calibrate: arguments of `model`, positional (a tuple) or by keyword: one batch, on which point-wise norms are
            fitted to the outputs of the norms that they replace.
        options: of the new norms. `affine` and `bias` are by default those of the old ones.

    Raises:
        ValueError: there is no such norm in the model, one whose size is unknown, or none that can be fitted.
    """
    old = {
        name: module for name, module in model.named_modules(remove_duplicate=False) if _is_meant(name, module, which)
    }
    if not old:
        raise ValueError(f"the model has no norm that matches {which or NORM_CLASS.pattern}; name others by `which`")
    new = {module: _successor(name, module, norm, options) for name, module in old.items()}
    targets = {}
    if calibrate is not None:
        if not all(isinstance(module, PointwiseNorm) for module in new.values()):
            raise ValueError("only point-wise norms can be calibrated; leave `calibrate` out")
        targets = outputs_of(model, {name: new[module] for name, module in old.items()}, calibrate)
    for name, module in old.items():
        parent, _, attribute = name.rpartition(".")
        place = model.get_submodule(parent)
        setattr(place, attribute, new[module])
        if isinstance(place, nn.TransformerEncoderLayer):
            place.activation_relu_or_gelu = 0  # without it torch leaves out a fast path that computes LayerNorms itself
    if calibrate is not None:
        fit_norms_(model, targets, calibrate)
    return list(old)


def _is_meant(name: str, module: nn.Module, which: type[nn.Module] | tuple[type[nn.Module], ...] | str | None) -> bool:
    if isinstance(which, str):
        return re.fullmatch(which, name) is not None
    return isinstance(module, which) if which else NORM_CLASS.fullmatch(type(module).__name__) is not None


def _successor(name: str, old: nn.Module, norm: str | type[nn.Module], options: Mapping[str, Any]) -> nn.Module:
    """Returns the norm that takes the place of `old`."""
    weight, bias = (getattr(old, key, None) for key in ("weight", "bias"))
    shape = getattr(old, "normalized_shape", None) if weight is None else weight.shape
    if shape is None or len(shape) != 1:
        raise ValueError(f"{name} is a {type(old).__name__} of shape {shape}: expected a norm of one dimension")
    maps = "2d" in type(old).__name__
    make: Callable[..., nn.Module]
    if isinstance(norm, str):
        make = partial(make_norm, norm, channels_first=maps)
    else:
        make = channels_first(norm) if maps else norm
    tensor = next(old.parameters(), torch.empty(0))
    made = {"affine": weight is not None, "bias": bias is not None, "device": tensor.device, "dtype": tensor.dtype}
    if eps := getattr(old, "eps", getattr(old, "variance_epsilon", None)):
        made["eps"] = eps
    new = make(shape[0], **{**made, **options})
    with torch.no_grad():
        for key, value in ("weight", _factor(old, weight)), ("bias", bias):
            if value is not None and isinstance(parameter := getattr(new, key, None), nn.Parameter):
                parameter.copy_(value).requires_grad_(getattr(old, key).requires_grad)
    return new.train(old.training)


def _factor(old: nn.Module, weight: Tensor | None) -> Tensor | None:
    """Returns what `old` multiplies with, which is 1 + weight in some RMSNorms of transformers, such as Gemma's."""
    if weight is None or getattr(old, "bias", None) is not None or weight.is_meta:
        return weight
    x = torch.linspace(-1, 1, len(weight), dtype=weight.dtype, device=weight.device)
    unit = x * x.square().mean().rsqrt()
    plain, shifted = ((old(x) - one * unit).norm() for one in (weight, weight + 1))
    return weight if plain <= shifted else weight + 1
