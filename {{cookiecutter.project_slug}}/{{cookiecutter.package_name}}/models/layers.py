"""What networks are built of: positions, rotary or as sines, a gated feed-forward network, activations computed anew.

B batch, H heads, T tokens, D width, E width of a head, which must be even. Rotary positions (Su et al. 2021, arXiv
2104.09864) turn the pairs (i, i + E/2) of a head, halves as transformers has them.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Rope = tuple[Tensor, Tensor]  # cosine and sine (T, E) of the positions at hand


def rope_tables(context: int, head_dim: int, base: float, device: torch.device) -> Rope:
    """Cosine and sine (context, E), fp32, of the angles that queries and keys are turned by."""
    return _tables(_angles(torch.arange(context, device=device), head_dim, base))


def rope_tables_2d(rows: int, columns: int, head_dim: int, base: float, device: torch.device) -> Rope:
    """Cosine and sine (rows * columns, E), fp32, for tokens of a grid, row by row; E must be a multiple of 4.

    The first half of the pairs turns by the row, the other half by the column, each as in one dimension of width E/2.
    """
    row = _angles(torch.arange(rows, device=device), head_dim // 2, base)  # (rows, E/4)
    column = _angles(torch.arange(columns, device=device), head_dim // 2, base)  # (columns, E/4)
    return _tables(torch.cat((row.repeat_interleave(columns, dim=0), column.repeat(rows, 1)), dim=-1))


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """x (B, H, T, E) turned by the tables (T, E), in fp32 and back in x's dtype."""
    cos, sin = rope
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-right, left), dim=-1) * sin).to(x.dtype)


def sines(values: Tensor, dim: int) -> Tensor:
    """Cosines, then sines, of `values` (...,) at dim / 2 wavelengths from 2 pi to nearly 10,000 times that, fp32."""
    steps = torch.arange(dim // 2, dtype=torch.float32, device=values.device)
    angles = values.float().unsqueeze(-1) * torch.exp(steps * (-math.log(10000.0) / (dim // 2)))
    return torch.cat((angles.cos(), angles.sin()), dim=-1)  # (..., dim)


def sines_2d(side: int, dim: int, device: torch.device) -> Tensor:
    """(side * side, dim): half of the width for the row of a token, half for its column."""
    line = sines(torch.arange(side, device=device), dim // 2)  # (side, D / 2)
    rows, columns = line[:, None].expand(-1, side, -1), line.expand(side, -1, -1)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))  # (B, T, D)


def computed_anew(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """What `function` returns, computed once more in backward instead of kept: no random numbers, no statistics."""
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def _angles(positions: Tensor, width: int, base: float) -> Tensor:
    """(T, width/2): position times base^(-2i / width) for the pairs i."""
    even = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device)
    return torch.outer(positions.float(), 1 / base ** (even / width))


def _tables(angles: Tensor) -> Rope:
    angles = torch.cat((angles, angles), dim=-1)  # (T, E): the halves of a head are its pairs
    return angles.cos(), angles.sin()
