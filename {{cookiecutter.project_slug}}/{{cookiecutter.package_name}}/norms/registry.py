"""Classes of norms by name."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import UsageError, did_you_mean
from .checks import known_site

_COMMON = ("dim", "site", "affine", "bias", "device", "dtype")
_classes: dict[str, type[nn.Module]] = {}
_Class = TypeVar("_Class", bound=type[nn.Module])


def register(name: str) -> Callable[[_Class], _Class]:
    """Class decorator that makes a norm known to `make_norm`, and so to `norm=<name>`.

    The class takes `(dim, site, affine, bias, device, dtype)` and its own options by keyword. Its attribute
    `normalizes` says whether it takes the scale out of its input, as LayerNorm does and DyT does not, for recipes to
    ask.

    Raises:
        UsageError: the name is taken or no identifier, or the class is not as above.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise UsageError(f"register({name!r}): expected a name that is an identifier, as in @register('my_norm')")

    def add(cls: _Class) -> _Class:
        where = f"register({name!r}): {cls.__qualname__}"
        if not isinstance(getattr(cls, "normalizes", None), bool):
            raise UsageError(f"{where} must say normalizes = True or normalizes = False")
        if missing := [keyword for keyword in _COMMON if not _takes(cls, keyword)]:
            raise UsageError(f"{where} must take {', '.join(_COMMON)} by keyword; it lacks {', '.join(missing)}")
        if _classes.setdefault(name, cls) is not cls:
            raise UsageError(f"{where} comes second, {_classes[name].__qualname__} has this name; choose another")
        return cls

    return add


def make_norm(
    name: str,
    dim: int,
    site: str | None = None,
    affine: bool = True,
    bias: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> nn.Module:
    """The norm called `name`, over a last dimension of size `dim`.

    Models receive `functools.partial(make_norm, name, **options)`.

    Args:
        site: what it stands before, one of `norms.SITES`; a norm may start differently there.
        affine: learn a weight and a bias.
        bias: without it `affine` is the weight alone.
        options: the class's own; configs/norm/<name>.yaml lists them.

    Raises:
        UsageError: no such norm, site or option, or an option that cannot have this value.
    """
    if name not in _classes:
        choice = ", ".join(names())
        raise UsageError(f"norm={name}: there is no such norm{did_you_mean(name, names())}; choose from {choice}")
    if site is not None:
        known_site("site", site)
    known = options_of(name)
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise UsageError(f"norm={name}: there is no option {option}{hint}; it has {', '.join(known) or 'none'}")
    return _classes[name](dim=dim, site=site, affine=affine, bias=bias, device=device, dtype=dtype, **options)


def names() -> list[str]:
    """Every name that `make_norm` knows."""
    return sorted(_classes)


def options_of(name: str) -> list[str]:
    """The options that the norm called `name` adds to the common ones."""
    parameters = inspect.signature(_classes[name]).parameters.values()
    return [p.name for p in parameters if p.name not in _COMMON and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is of a registered class."""
    return isinstance(module, tuple(_classes.values()))


def has_batch_norm(net: nn.Module) -> bool:
    """Whether `net` takes statistics over a batch, of any class of torch's: some of what saves memory upsets them."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())


def _takes(cls: type[nn.Module], keyword: str) -> bool:
    parameters = inspect.signature(cls).parameters
    return keyword in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
