"""Initialisation whose scales do not depend on width, shared by every family.

A usual std of 0.02 is a gain (std * sqrt(fan_in)) of 1.28 at width 4096, but of 0.23 at width 128. A normaliser repairs
a wrong gain at every layer; a point-wise norm passes it on. So a small net starts from:

    every weight            std fan_in^-0.5, so that a layer keeps the scale of its input
    every bias              0
    writers to the stream   that, times (2 * depth)^-0.5: the residual stream grows by sqrt(2), not with depth
    the head                that, times `head_gain`: a saturating norm before it bounds the logits
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


class Drawn(Protocol):
    """A net that can draw its weights anew, in place."""

    def init_weights(self) -> None: ...


_Net = TypeVar("_Net", bound=Drawn)
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def drawn_on(device: torch.device | str | None, make: Callable[[], _Net]) -> _Net:
    """The net that `make` constructs, there or on the CPU, with the weights that its `init_weights` draws."""
    generator = torch.get_rng_state()
    with torch.device(device or "cpu"):
        net = make()
    torch.set_rng_state(generator)  # PyTorch's layers have drawn too, but on "meta" nothing does
    net.init_weights()
    return net


def reset_(norms: Iterable[nn.Module]) -> None:
    """Starts norms anew, each as it is meant to."""
    for norm in norms:
        reset: Callable[[], None] | None = getattr(norm, "reset_parameters", None)
        if reset is not None:  # the identity has none
            reset()


@torch.no_grad()
def fan_in_(
    net: nn.Module, writers: Iterable[nn.Module], depth: int, head: nn.Module | None = None, head_gain: float = 1.0
) -> None:
    """Draws all linear and convolution weights of `net` anew, in place, by the table above.

    Args:
        net: any network; norms, embeddings and positions are left as they are.
        writers: its layers whose output is added to the residual stream.
        depth: number of blocks, each with two writers.
        head: the last layer, if it has a gain of its own.
        head_gain: that gain.
    """
    gains = {id(layer): (2 * depth) ** -0.5 for layer in writers} | {id(head): head_gain}
    for layer in net.modules():
        if isinstance(layer, WEIGHTED):
            fan_in = layer.weight[0].numel()
            normal_(layer.weight, gains.get(id(layer), 1.0) * fan_in**-0.5)
            if layer.bias is not None:
                layer.bias.zero_()


def normal_(weight: Tensor, std: float) -> None:
    """Draws `weight` anew, in place, from torch's default generator."""
    drawn_(weight, lambda whole: whole.normal_(std=std))


def xavier_(weight: Tensor) -> None:
    """Uniform, of variance 2 / (fan_in + fan_out); a convolution counts as the linear layer on its patches."""
    drawn_(weight, lambda whole: nn.init.xavier_uniform_(whole.flatten(1)))


def drawn_(weight: Tensor, draw: Callable[[Tensor], object]) -> None:
    """Lets `draw` fill `weight`, in place.

    Of a sharded one every process draws the whole on the CPU, and keeps its part: the numbers are those of one process.
    """
    if isinstance(weight, DTensor):
        whole = torch.empty(weight.shape, dtype=weight.dtype)
        draw(whole)
        whole = whole.to(weight.device)
        weight.copy_(distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None))
    else:
        draw(weight)
