"""From one net to another that differs in its norms: its weights, and norms that do nearly what its own did."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import require
from . import is_norm
from .calibrate import calibrate_, rows

TORCH_NORMS = (nn.LayerNorm, nn.RMSNorm)

Inputs = tuple[Any, ...]


class Distance(NamedTuple):
    """Of the outputs of a net from those of another."""

    relative: float  # the norm of the difference over the norm of the other's
    kept: float | None  # share of the predictions that are the same

    def __str__(self) -> str:
        kept = "" if self.kept is None else f", {self.kept:.1%} of the predictions kept"
        return f"outputs off by {self.relative:.1%}{kept}"


class _AllSeen(Exception):
    """Ends a forward pass whose rest nobody asks for: a head's outputs can be much larger than all else."""


@torch.no_grad()
def copy_(net: nn.Module, old: nn.Module, anew: Sequence[str], where: str, hint: str) -> tuple[list[str], list[str]]:
    """Copies all weights of `old` but those of norms that `net` has otherwise.

    Args:
        anew: layers that stay as they are where their sizes differ.
        where, hint: what a refusal begins and ends with.

    Returns:
        The names of the other norms, and of the layers of other sizes.

    Raises:
        UsageError: the nets differ in more than that; the first difference is named.
    """
    present, norms = dict(old.named_modules()), []
    for name, norm in net.named_modules():
        if is_norm(norm):
            known = not isinstance(present.get(name, nn.Identity()), nn.Identity)
            require(known, f"{where}this net has a norm at {name}, and that one has none{hint}")
            if not _alike(norm, present[name]):
                norms.append(name)
    mine, theirs = _state(net, norms), _state(old, norms)
    sizes = [{name: tuple(one.shape) for name, one in state.items()} for state in (mine, theirs)]
    other_sizes = [one for one in anew if len({tuple(_below(one, size).items()) for size in sizes}) > 1]
    for name in dict.fromkeys((*mine, *theirs)):
        if any(_below(one, {name: name}) for one in other_sizes):
            continue
        require(name in theirs, f"{where}this net has {name}, and that one has not{hint}")
        require(name in mine, f"{where}that net has {name}, and this one has not{hint}")
        here, there = (size[name] for size in sizes)
        require(here == there, f"{where}{name} is {there} there and {here} here{hint}")
        mine[name].copy_(theirs[name])
    return norms, other_sizes


@torch.no_grad()
def fit_norms_(net: nn.Module, old: nn.Module, norms: Sequence[str], inputs: Inputs) -> None:
    """Fits these point-wise norms of `net`, in the order of execution, to what those of `old` make of `inputs`.

    A norm is fitted when the forward pass comes to it: what it is fed comes from norms that are fitted already, and
    what it is fitted to is the old net's own. So errors are made good for, as far as a norm can, instead of adding up.
    All of `inputs` go through at once. Of a norm that is called more than once the first call counts.
    """
    targets: dict[str, Tensor] = {}

    def keep(name: str, norm: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        targets.setdefault(name, rows(output))
        if len(targets) == len(norms):
            raise _AllSeen

    def fit(name: str, norm: Any, args: tuple[Tensor, ...]) -> None:
        if name in targets:
            calibrate_(norm, rows(args[0]), targets.pop(name))
            if not targets:
                raise _AllSeen

    theirs = (old.get_submodule(name).register_forward_hook(partial(keep, name)) for name in norms)
    with _hooked(theirs), contextlib.suppress(_AllSeen):
        old(*inputs)
    ours = (net.get_submodule(name).register_forward_pre_hook(partial(fit, name)) for name in norms)
    with _hooked(ours), contextlib.suppress(_AllSeen):
        net(*inputs)


@contextlib.contextmanager
def standing_in(net: nn.Module, old: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """`net` with the layers of `old` in the places of its own of these names, for forward passes."""

    def other(layer: nn.Module) -> Callable[..., Tensor]:
        return lambda _, args, __: layer(*args)

    with _hooked(net.get_submodule(name).register_forward_hook(other(old.get_submodule(name))) for name in names):
        yield


@torch.no_grad()
def distance(net: nn.Module, old: nn.Module, batches: Iterable[Inputs], classifies: bool) -> Distance:
    """Of the outputs of `net` from those of `old`.

    Args:
        classifies: the outputs are logits, in their last dimension.
    """
    off = size = kept = number = 0.0
    for inputs in batches:
        ours, theirs = net(*inputs).float(), old(*inputs).float()
        off += (ours - theirs).square().sum().item()
        size += theirs.square().sum().item()
        if classifies:
            same = ours.argmax(-1) == theirs.argmax(-1)
            kept += same.sum().item()
            number += same.numel()
    return Distance((off / size) ** 0.5 if size else off, kept / number if number else None)


@contextlib.contextmanager
def _hooked(handles: Iterable[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    hooks = list(handles)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _alike(norm: nn.Module, other: nn.Module) -> bool:
    """Whether the one can take the other's weights: LayerNorms from elsewhere and ours are both torch's."""
    return type(norm) is type(other) or any(isinstance(norm, cls) and isinstance(other, cls) for cls in TORCH_NORMS)


def _state(net: nn.Module, norms: Sequence[str]) -> dict[str, Tensor]:
    return {
        name: one for name, one in net.state_dict().items() if not any(name.startswith(f"{norm}.") for norm in norms)
    }


def _below(layer: str, entries: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if name.startswith(f"{layer}.")}
