"""Rotary positions (Su et al. 2021, arXiv 2104.09864), in halves as transformers has them."""

import torch
from torch import Tensor

Rope = tuple[Tensor, Tensor]  # cosine and sine (T, E) of the positions at hand


def rope_tables(context: int, head_dim: int, base: float, device: torch.device) -> Rope:
    """Cosine and sine (context, E), fp32, of the angles that queries and keys are turned by."""
    even = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    angles = torch.outer(torch.arange(context, dtype=torch.float32, device=device), 1 / base ** (even / head_dim))
    angles = torch.cat((angles, angles), dim=-1)  # the halves of a head are its pairs, as transformers has them
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """x (B, H, T, E) turned by the tables (T, E), in fp32 and back in x's dtype."""
    cos, sin = rope
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-right, left), dim=-1) * sin).to(x.dtype)
