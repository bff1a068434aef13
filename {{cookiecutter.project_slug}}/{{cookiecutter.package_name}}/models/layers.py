"""Layers that families share: rotary position embedding and activation checkpointing.

B batch, H heads, T tokens, D width, E width of a head, which must be even. Rotary position embedding (Su et al. 2021,
arXiv 2104.09864) turns the pairs (i, i + E/2) of a head: the halves layout of transformers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Rope = tuple[Tensor, Tensor]  # cosine and sine (T, E) of the positions at hand


def rope_cos_sin(context: int, head_dim: int, base: float, device: torch.device) -> Rope:
    """Returns cosine and sine (context, E), fp32, of the angles that queries and keys are turned by."""
    return _cos_sin(_angles(torch.arange(context, device=device), head_dim, base))


def rope_cos_sin_2d(rows: int, columns: int, head_dim: int, base: float, device: torch.device) -> Rope:
    """Returns cosine and sine (rows * columns, E), fp32, for the tokens of a grid, row by row.

    The first half of the pairs turns by the row, the other half by the column; E must be a multiple of 4.
    """
    row = _angles(torch.arange(rows, device=device), head_dim // 2, base)  # (rows, E/4)
    column = _angles(torch.arange(columns, device=device), head_dim // 2, base)  # (columns, E/4)
    return _cos_sin(torch.cat((row.repeat_interleave(columns, dim=0), column.repeat(rows, 1)), dim=-1))


def apply_rotary_emb(x: Tensor, rope: Rope) -> Tensor:
    """Returns x (B, H, T, E) turned by the angles, computed in fp32, in x's dtype."""
    cos, sin = rope
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-right, left), dim=-1) * sin).to(x.dtype)


def checkpointed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Returns `function(*inputs)` with activation checkpointing: backward computes it again instead of keeping it.

    For functions without random numbers and running statistics.
    """
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def _angles(positions: Tensor, width: int, base: float) -> Tensor:
    """Returns (T, width/2): position times base^(-2i / width) for the pairs i."""
    even = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device)
    return torch.outer(positions.float(), 1 / base ** (even / width))


def _cos_sin(angles: Tensor) -> Rope:
    angles = torch.cat((angles, angles), dim=-1)  # (T, E): the halves of a head are its pairs
    return angles.cos(), angles.sin()
