"""weight * curve(alpha * x + shift) + bias as Triton kernels; the curve is tanh, or erf where there is a shift.

x is seen as (M, N) and is contiguous. Tiles are (BLOCK_M, BLOCK_N). The arithmetic is fp32 for every dtype of x. `None`
for a pointer leaves out the tensor.

Forward moves 2 M N elements, backward 3 M N (it reads dy and x and writes dx) and the sums. The kernels were compiled
for sm_90 and run in Triton's interpreter, not on a GPU. The module's name starts with an underscore so that
`norms/__init__.py` does not import it: Triton may be missing.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDEST = 128  # columns of a tile
FORWARD_TILE = 2048  # elements
BACKWARD_TILE = 1024  # fewer, since up to four sums of this size stay in registers
OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}  # Triton 3.10 no longer fuses a * b + c by itself
PROGRAMS = 512  # of backward, about; each leaves one row of sums


@triton.jit
def _curve_and_slope(u, ERF: tl.constexpr):
    """Returns f(u) and f'(u); tanh with an absolute error of about 1e-7."""
    if ERF:
        f = tl.erf(u)
        slope = 1.1283791670955126 * tl.exp(-u * u)  # 2 / sqrt(pi)
    else:
        e = tl.exp(-2 * tl.abs(u))
        r = 1 / (1 + e)
        f = tl.where(u < 0, e - 1, 1 - e) * r
        slope = 4 * e * r * r  # 1 - f * f would lose all digits where f is nearly 1
    return f, slope


@triton.jit
def _forward(
    x_ptr,
    alpha_ptr,
    shift_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    M,
    N,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    across = tl.cdiv(N, BLOCK_N)
    rows = (tl.program_id(0) // across).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) % across * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (rows < M)[:, None] & (columns < N)[None, :]
    tile = rows[:, None] * N + columns[None, :]
    u = tl.load(x_ptr + tile, mask=mask).to(tl.float32) * tl.load(alpha_ptr).to(tl.float32)
    if shift_ptr is not None:
        u += tl.load(shift_ptr).to(tl.float32)
    y, _ = _curve_and_slope(u, shift_ptr is not None)
    if weight_ptr is not None:
        y *= tl.load(weight_ptr + columns, mask=columns < N).to(tl.float32)[None, :]
    if bias_ptr is not None:
        y += tl.load(bias_ptr + columns, mask=columns < N).to(tl.float32)[None, :]
    tl.store(y_ptr + tile, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward(
    dy_ptr,
    x_ptr,
    alpha_ptr,
    shift_ptr,
    weight_ptr,
    dx_ptr,
    sums_ptr,
    M,
    N,
    BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Writes dx, and to sums (groups, 4, N) this program's share of the gradients of alpha, shift, weight and bias.

    A program keeps to its BLOCK_N columns and goes down the rows in steps of all groups. The gradients of alpha and
    shift are left as one number for each column.
    """
    across = tl.cdiv(N, BLOCK_N)
    group = tl.program_id(0) // across
    groups = tl.num_programs(0) // across
    columns = tl.program_id(0) % across * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = columns < N
    alpha = tl.load(alpha_ptr).to(tl.float32)
    scale = tl.full((BLOCK_N,), 1, tl.float32)
    if weight_ptr is not None:
        scale = tl.load(weight_ptr + columns, mask=inside, other=0).to(tl.float32)
    alpha_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    shift_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    weight_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    bias_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for row in range(group.to(tl.int64) * BLOCK_M, M, groups * BLOCK_M):
        rows = row + tl.arange(0, BLOCK_M)
        mask = (rows < M)[:, None] & inside[None, :]
        tile = rows[:, None] * N + columns[None, :]
        dy = tl.load(dy_ptr + tile, mask=mask, other=0).to(tl.float32)
        x = tl.load(x_ptr + tile, mask=mask, other=0).to(tl.float32)
        u = x * alpha
        if shift_ptr is not None:
            u += tl.load(shift_ptr).to(tl.float32)
        f, slope = _curve_and_slope(u, shift_ptr is not None)
        du = dy * slope
        tl.store(dx_ptr + tile, (du * (alpha * scale)[None, :]).to(dx_ptr.dtype.element_ty), mask=mask)
        alpha_sum += du * x
        if shift_ptr is not None:
            shift_sum += du
        if weight_ptr is not None:
            weight_sum += dy * f
        if BIAS:
            bias_sum += dy
    sums_ptr += group * (4 * N) + columns
    tl.store(sums_ptr, tl.sum(alpha_sum, 0) * scale, mask=inside)
    if shift_ptr is not None:
        tl.store(sums_ptr + N, tl.sum(shift_sum, 0) * scale, mask=inside)
    if weight_ptr is not None:
        tl.store(sums_ptr + 2 * N, tl.sum(weight_sum, 0), mask=inside)
    if BIAS:
        tl.store(sums_ptr + 3 * N, tl.sum(bias_sum, 0), mask=inside)


def forward(x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x.contiguous()
    weight, bias = (None if one is None else one.contiguous() for one in (weight, bias))
    y = torch.empty_like(x)
    if x.numel() > 0:
        rows, width, block_m, block_n = _sizes(x, FORWARD_TILE)
        grid = (triton.cdiv(rows, block_m) * triton.cdiv(width, block_n),)
        with _on(x):
            _forward[grid](x, alpha, shift, weight, bias, y, rows, width, block_m, block_n, **OPTIONS)
    return y


def backward(
    dy: Tensor, x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Returns the gradients of x, alpha, shift, weight and bias, None for those that are None."""
    dy, x = dy.contiguous(), x.contiguous()
    scale = None if weight is None else weight.contiguous()
    dx = torch.empty_like(x)
    sums = torch.zeros(1, 4, x.shape[-1], device=x.device)
    if x.numel() > 0:
        rows, width, block_m, block_n = _sizes(x, BACKWARD_TILE)
        across = triton.cdiv(width, block_n)
        groups = min(triton.cdiv(rows, block_m), triton.cdiv(PROGRAMS, across))
        sums = torch.empty(groups, 4, width, device=x.device)
        constants = (bias is not None, block_m, block_n)
        with _on(x):
            _backward[(groups * across,)](dy, x, alpha, shift, scale, dx, sums, rows, width, *constants, **OPTIONS)
    dalpha, dshift, dweight, dbias = sums.sum(0)
    pairs = (alpha, dalpha.sum()), (shift, dshift.sum()), (weight, dweight), (bias, dbias)
    return dx, *(None if one is None else total.view(one.shape).to(one.dtype) for one, total in pairs)


def _sizes(x: Tensor, tile: int) -> tuple[int, int, int, int]:
    """Returns M and N of x, and BLOCK_M and BLOCK_N of tiles of so many elements."""
    width = x.shape[-1]
    block_n = min(WIDEST, triton.next_power_of_2(width))
    return x.numel() // width, width, tile // block_n, block_n


def _on(x: Tensor) -> AbstractContextManager[Any]:
    """Makes the device of x the current one, on which Triton launches."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
