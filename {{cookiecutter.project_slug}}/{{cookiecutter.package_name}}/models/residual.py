"""Residual connections: where the norm stands, and published ways to train deep networks without one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

SCHEMES = ("plain", "skipinit", "rezero", "fixup", "layerscale", "deepnorm", "lns")


class Residual(nn.Module):
    """The connection around a branch F of a block, which is attention or the MLP; x is (..., dim).

    | placement  | output                                  | source           |
    |------------|-----------------------------------------|------------------|
    | pre        | x + F(norm(x))                          |                  |
    | post       | norm(x + F(x))                          |                  |
    | peri       | x + out_norm(F(norm(x)))                | arXiv 2502.02732 |

    | scheme     | change                                  | source           |
    |------------|-----------------------------------------|------------------|
    | skipinit   | scale * F, a scalar for each branch     | arXiv 2002.10444 |
    | rezero     | scale * F, a scalar for both branches   | arXiv 2003.04887 |
    | layerscale | scale * F, scale (dim,)                 | arXiv 2103.17239 |
    | fixup      | scale * F(norm(x) + bias_in) + bias_out | arXiv 1901.09321 |
    | deepnorm   | (2 depth)^0.25 * x in the place of x    | arXiv 2203.00555 |
    | lns        | norm(x) / sqrt(number of the block)     | arXiv 2502.05795 |

    Scales start at 0, under "fixup" at 1, under "layerscale" at 0.1, from 19 blocks on at 1e-5, from 25 on at 1e-6.
    `init.fan_in_` has the weights of "fixup" and "deepnorm".

    Args:
        index: number of the block, from 0.
        depth: number of blocks.
        out_norm: makes the norm behind the branch under "peri".
        first: the block's first connection, for its second; "rezero" takes the scale of that.
    """

    def __init__(
        self,
        dim: int,
        index: int,
        depth: int,
        out_norm: Callable[[], nn.Module],
        scheme: str = "plain",
        placement: str = "pre",
        first: Residual | None = None,
    ) -> None:
        super().__init__()
        self.scheme, self.placement, self.depth = scheme, placement, depth
        self.norm_factor = (index + 1) ** -0.5 if scheme == "lns" else 1.0
        self.stream_factor = (2 * depth) ** 0.25 if scheme == "deepnorm" else 1.0
        self.out_norm = out_norm() if placement == "peri" else None
        self._first = [first] if first is not None and scheme == "rezero" else []  # in a list it is no submodule
        scaled = scheme in ("skipinit", "rezero", "layerscale", "fixup") and not self._first
        size = dim if scheme == "layerscale" else 1
        self.scale = nn.Parameter(torch.empty(size)) if scaled else None
        self.bias_in = nn.Parameter(torch.empty(1)) if scheme == "fixup" else None
        self.bias_out = nn.Parameter(torch.empty(1)) if scheme == "fixup" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        starts = {"fixup": 1.0, "layerscale": 0.1 if self.depth <= 18 else 1e-5 if self.depth <= 24 else 1e-6}
        for parameter, start in (self.scale, starts.get(self.scheme, 0.0)), (self.bias_in, 0.0), (self.bias_out, 0.0):
            if parameter is not None:
                nn.init.constant_(parameter, start)

    def forward(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        y = x if self.placement == "post" else norm(x)
        if self.norm_factor != 1:
            y = y * self.norm_factor
        y = branch(y if self.bias_in is None else y + self.bias_in)
        if self.out_norm is not None:
            y = self.out_norm(y)
        scale = self._first[0].scale if self._first else self.scale
        y = y if scale is None else y * scale
        y = y if self.bias_out is None else y + self.bias_out
        y = (x if self.stream_factor == 1 else x * self.stream_factor) + y
        return norm(y) if self.placement == "post" else y

    def extra_repr(self) -> str:
        return f"{self.scheme}, {self.placement}"
