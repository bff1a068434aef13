"""The weights of a trained model for one with other norms, and norms that are fitted to the trained ones."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .calibrate import calibrate_, rows
from .maps import channels_last
from .registry import is_norm

TORCH_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm2d)

Inputs = tuple[Any, ...] | Mapping[str, Any]  # arguments of a model


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Returns the outputs of `model` for positional arguments, or for a mapping of keyword arguments."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


class Distance(NamedTuple):
    """The distance of a model's outputs from those of another.

    Args:
        relative: the norm of the difference over the norm of the other's outputs.
        kept: share of the predictions that are the same, where the outputs are predictions.
    """

    relative: float
    kept: float | None

    def __str__(self) -> str:
        kept = "" if self.kept is None else f", {self.kept:.1%} of the predictions kept"
        return f"outputs off by {self.relative:.1%}{kept}"


class _AllSeen(Exception):
    """Ends a forward pass whose rest is not needed: the outputs of a head can be much larger than all else."""


@torch.no_grad()
def copy_(model: nn.Module, old: nn.Module, resizable: Sequence[str]) -> tuple[list[str], list[str]]:
    """Copies all weights of `old` into `model`, but for norms of another kind.

    Args:
        resizable: layers that keep their own weights where their sizes differ.

    Returns:
        The names of the other norms, and of the layers of other sizes.

    Raises:
        ValueError: the models differ in more than that; the first difference is named.
    """
    theirs, norms = dict(old.named_modules()), []
    for name, norm in model.named_modules():
        if is_norm(norm):
            if isinstance(theirs.get(name, nn.Identity()), nn.Identity):
                raise ValueError(f"this model has a norm at {name}, and that one has none")
            if not _alike(norm, theirs[name]):
                norms.append(name)
    here, there = ({k: v for k, v in one.state_dict().items() if not _in(k, norms)} for one in (model, old))
    resized = [
        layer
        for layer in resizable
        if len({tuple((k, v.shape) for k, v in one.items() if _in(k, [layer])) for one in (here, there)}) > 1
    ]
    for name in dict.fromkeys((*here, *there)):
        if _in(name, resized):
            continue
        if name not in here or name not in there:
            has, lacks = ("this model", "that one") if name in here else ("that model", "this one")
            raise ValueError(f"{has} has {name}, and {lacks} has not")
        if here[name].shape != there[name].shape:
            raise ValueError(f"{name} is {tuple(there[name].shape)} there and {tuple(here[name].shape)} here")
        here[name].copy_(there[name])
    return norms, resized


@torch.no_grad()
def outputs_of(model: nn.Module, norms: Mapping[str, nn.Module], inputs: Inputs) -> dict[str, Tensor]:
    """Returns the outputs (N, dim) of these norms on a batch; of a norm that is called more than once, the first.

    Args:
        norms: names, and the norms that are to come there, which know where the channels are.
        inputs: arguments of `model`, a tuple or by keyword.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str, norm: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.setdefault(name, rows(channels_last(norms[name], output)))
        if len(outputs) == len(norms):
            raise _AllSeen

    with _hooks(model.get_submodule(name).register_forward_hook(partial(keep, name)) for name in norms):
        call(model, inputs)
    return outputs


@torch.no_grad()
def fit_norms_(model: nn.Module, targets: Mapping[str, Tensor], inputs: Inputs) -> None:
    """Fits point-wise norms of `model`, in the order of execution, to outputs of others on the same `inputs`.

    A norm is fitted when the forward pass comes to it, so its input comes from norms that are fitted already, and each
    makes up for the errors before it as far as it can.

    Raises:
        ValueError: something is not finite.
    """
    left = dict(targets)

    def fit(name: str, norm: Any, args: tuple[Tensor, ...]) -> None:
        if name in left:
            calibrate_(norm, rows(channels_last(norm, args[0])), left.pop(name))
            if not left:
                raise _AllSeen

    with _hooks(model.get_submodule(name).register_forward_pre_hook(partial(fit, name)) for name in targets):
        call(model, inputs)


@contextlib.contextmanager
def standing_in(model: nn.Module, old: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Lets the layers of `old` with these names compute in the place of those of `model`, for forward passes."""

    def other(layer: nn.Module) -> Callable[..., Tensor]:
        return lambda _, args, __: layer(*args)

    with _hooks(model.get_submodule(name).register_forward_hook(other(old.get_submodule(name))) for name in names):
        yield


@torch.no_grad()
def distance(model: nn.Module, old: nn.Module, batches: Iterable[Inputs], classifies: bool) -> Distance:
    """Returns the distance of the outputs of `model` from those of `old`.

    Args:
        classifies: the outputs are logits, in their last dimension.
    """
    off = size = kept = number = 0.0
    for inputs in batches:
        ours, theirs = call(model, inputs).float(), call(old, inputs).float()
        off += (ours - theirs).square().sum().item()
        size += theirs.square().sum().item()
        if classifies:
            same = ours.argmax(-1) == theirs.argmax(-1)
            kept += same.sum().item()
            number += same.numel()
    return Distance((off / size) ** 0.5 if size else off, kept / number if number else None)


@contextlib.contextmanager
def _hooks(handles: Iterable[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    hooks = list(handles)
    try:
        with contextlib.suppress(_AllSeen):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _alike(norm: nn.Module, other: nn.Module) -> bool:
    """Returns whether one can take the other's weights: LayerNorms from elsewhere and ours are both torch's."""
    if _form(norm) != _form(other):
        return False
    return type(norm) is type(other) or any(isinstance(norm, cls) and isinstance(other, cls) for cls in TORCH_NORMS)


def _form(norm: nn.Module) -> tuple[Any, ...]:
    """Returns the options that say what a norm's parameters mean."""
    running = getattr(norm, "running_square", None) is not None
    return getattr(norm, "alpha_per", None), running, getattr(norm, "scale", "weight")


def _in(name: str, layers: Sequence[str]) -> bool:
    return any(name.startswith(f"{layer}.") for layer in layers)
