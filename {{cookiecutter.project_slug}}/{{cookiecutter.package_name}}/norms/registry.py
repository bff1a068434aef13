"""Norm classes by name: `@register("name")` on a class, `make_norm("name", dim)`."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from torch import nn

from .maps import channels_first as over_maps

SITES = ("attn", "ffn", "final")  # before attention, before the feed-forward network, after the last block
COMMON = ("dim", "site", "affine", "bias", "device", "dtype", "eps")  # arguments of every norm

_classes: dict[str, type[nn.Module]] = {}
_Class = TypeVar("_Class", bound=type[nn.Module])


def register(name: str) -> Callable[[_Class], _Class]:
    """Returns a class decorator that makes a norm known to `make_norm`, and so to `norm=<name>`.

    The class takes COMMON and its own options by keyword. Its attribute `normalizes` says whether it takes the scale
    out of its input, as LayerNorm does and DyT does not.

    Raises:
        ValueError: the name is taken, or no identifier.
        TypeError: the class lacks some of this.
    """
    if not name.isidentifier():
        raise ValueError(f"{name!r} is no name for a norm: expected an identifier, as in @register('my_norm')")

    def add(cls: _Class) -> _Class:
        if not isinstance(getattr(cls, "normalizes", None), bool):
            raise TypeError(f"{cls.__qualname__} must say normalizes = True or normalizes = False")
        parameters = inspect.signature(cls).parameters
        missing = [keyword for keyword in COMMON if keyword not in parameters]
        if missing and not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            raise TypeError(f"{cls.__qualname__} must take {', '.join(missing)} by keyword, as every norm")
        if _classes.setdefault(name, cls) is not cls:
            raise ValueError(f"{_classes[name].__qualname__} is registered as {name} already; choose another name")
        return cls

    return add


def make_norm(
    *args: str | int, name: str | None = None, dim: int | None = None, channels_first: bool = False, **options: Any
) -> nn.Module:
    """Returns a norm over a last dimension of size `dim`: make_norm("dyt", 96), or make_norm(96, name="dyt").

    As a model's `norm_layer`, `functools.partial(make_norm, "dyt")` works wherever it is called as it is, and
    `functools.partial(make_norm, name="dyt")` also in timm, which passes on only the keywords of a partial.

    Args:
        channels_first: the norm is over (B, dim, ...) instead.
        options: `site` (what the norm stands before, one of SITES; it may start differently there), `affine` (learn a
            weight and a bias), `bias` (False: the weight alone), `device`, `dtype`, `eps`, and the options of the
            class, which configs/norm/<name>.yaml lists.

    Raises:
        ValueError: no such norm, or a value that an option cannot have.
        TypeError: no such option, or no name.
    """
    for value in args:
        if isinstance(value, str):
            name = value
        else:
            dim = value
    if name is None or dim is None:
        raise TypeError(
            'make_norm needs a name and a size, as in make_norm("dyt", 96); timm passes on only the keywords of a '
            'partial: functools.partial(make_norm, name="dyt")'
        )
    if name not in _classes:
        raise ValueError(f"there is no norm {name}; choose from {', '.join(names())}")
    if unknown := options.keys() - {*COMMON, *options_of(name)}:
        raise TypeError(f"norm {name} takes no {', '.join(unknown)}; its options are {', '.join(options_of(name))}")
    cls = over_maps(_classes[name]) if channels_first else _classes[name]
    return cls(dim=dim, **options)


def qk_norm_layer(name: str, norm_layer: Callable[..., nn.Module]) -> Callable[..., nn.Module] | None:
    """Returns the norm of queries and keys: the one called `name`, "same" as `norm_layer`, or "none"."""
    if name == "none":
        return None
    return norm_layer if name == "same" else partial(make_norm, name=name)


def names() -> list[str]:
    """Returns every name that `make_norm` knows."""
    return sorted(_classes)


def options_of(name: str) -> list[str]:
    """Returns the options that the norm called `name` adds to the common ones."""
    parameters = inspect.signature(_classes[name]).parameters.values()
    return [one.name for one in parameters if one.name not in COMMON and one.kind is not one.VAR_KEYWORD]


def is_norm(module: nn.Module) -> bool:
    """Returns whether `module` is of a registered class, or a BatchNorm of maps."""
    return isinstance(module, (*_classes.values(), nn.BatchNorm2d, nn.SyncBatchNorm))


def has_batch_norm(model: nn.Module) -> bool:
    """Returns whether `model` takes statistics over a batch. Computing a block twice then counts its batch twice."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
