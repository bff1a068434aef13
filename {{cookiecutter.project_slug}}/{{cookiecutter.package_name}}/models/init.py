"""Initialisation whose scales do not depend on width, shared by every family.

A usual std of 0.02 is a gain (std * sqrt(fan_in)) of 1.28 at width 4096, but of 0.23 at width 128. A normaliser repairs
a wrong gain at every layer; a point-wise norm passes it on. So a small model starts from:

    every weight            std fan_in^-0.5, so that a layer keeps the scale of its input
    every bias              0
    residual projections    that, times (2 * depth)^-0.5: the residual stream grows by sqrt(2), not with depth
                            (under other residual connections than plain ones what their papers say, as far as they do)
    the head                that, times `head_gain`: a saturating norm before it bounds the logits
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


class HasInitWeights(Protocol):
    """A model that draws its weights in place."""

    def init_weights(self) -> None: ...


_Model = TypeVar("_Model", bound=HasInitWeights)
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ATTENDS = ("q_proj", "k_proj")
STARTS_BRANCH = (*ATTENDS, "v_proj", "attn.qkv", "gate_proj", "up_proj", "mlp.fc1", "mlp.fc1_g", "mlp.fc1_x")


def init_on_device(device: torch.device | str | None, make: Callable[[], _Model]) -> _Model:
    """Returns the model that `make` constructs, on `device` or the CPU, with the weights of its `init_weights`."""
    generator = torch.get_rng_state()
    with torch.device(device or "cpu"):
        model = make()
    torch.set_rng_state(generator)  # PyTorch's layers have drawn too, but on "meta" nothing does
    model.init_weights()
    return model


def reset_norms_(norms: Iterable[nn.Module]) -> None:
    """Resets the parameters of norms; an identity has none."""
    for norm in norms:
        reset: Callable[[], None] | None = getattr(norm, "reset_parameters", None)
        if reset is not None:
            reset()


@torch.no_grad()
def fan_in_(
    model: nn.Module,
    residual_projections: Iterable[nn.Module],
    depth: int,
    head: nn.Module | None = None,
    head_gain: float = 1.0,
    gain: float = 1.0,
    residual: str = "plain",
) -> None:
    """Draws all linear and convolution weights of `model`, in place, by the table above.

    Args:
        model: any network; norms, embeddings and positions are left as they are.
        residual_projections: its layers whose output is added to the residual stream.
        depth: number of blocks, each with two residual projections.
        head: the last layer, if it has a gain of its own.
        head_gain: that gain.
        gain: of all other layers, such as sqrt(2) where a ReLU follows.
        residual: scheme of `residual.Residual`. Its branches have two layers: "fixup" starts the first with a gain of
            (2 depth)^-0.5 and the last at 0, "deepnorm" both with (8 depth)^-0.25, but queries and keys with 1.
    """
    inside, out = {
        "plain": (1.0, (2 * depth) ** -0.5),
        "fixup": ((2 * depth) ** -0.5, 0.0),
        "deepnorm": ((8 * depth) ** -0.25,) * 2,
    }.get(residual, (1.0, 1.0))
    gains = {id(layer): out for layer in residual_projections} | {id(head): head_gain}
    for name, layer in model.named_modules():
        if isinstance(layer, WEIGHTED):
            starts_branch = name.endswith(STARTS_BRANCH) and not (residual == "deepnorm" and name.endswith(ATTENDS))
            scale: float | Tensor = gains.get(id(layer), inside if starts_branch else gain)
            if residual == "deepnorm" and name.endswith("qkv"):
                scale = torch.tensor([1.0, 1.0, inside]).repeat_interleave(len(layer.weight) // 3).unsqueeze(1)
            normal_(layer.weight, scale * layer.weight[0].numel() ** -0.5)
            if layer.bias is not None:
                layer.bias.zero_()


def normal_(weight: Tensor, std: float | Tensor) -> None:
    """Draws `weight` from a normal distribution, in place, by torch's default generator; std may be (rows, 1)."""
    if isinstance(std, Tensor):
        fill_(weight, lambda full: full.normal_().mul_(std))
    else:
        fill_(weight, lambda full: full.normal_(std=std))


def xavier_uniform_(weight: Tensor) -> None:
    """Draws `weight` with variance 2 / (fan_in + fan_out); a convolution counts as the linear layer on its patches."""
    fill_(weight, lambda full: nn.init.xavier_uniform_(full.flatten(1)))


def fill_(weight: Tensor, fill: Callable[[Tensor], object]) -> None:
    """Lets `fill` write the values of `weight`, in place.

    For a sharded weight every process fills the full tensor on the CPU and keeps its part, so that the numbers are
    those of one process.
    """
    if isinstance(weight, DTensor):
        full = torch.empty(weight.shape, dtype=weight.dtype)
        fill(full)
        full = full.to(weight.device)
        weight.copy_(distribute_tensor(full, weight.device_mesh, weight.placements, src_data_rank=None))
    else:
        fill(weight)
