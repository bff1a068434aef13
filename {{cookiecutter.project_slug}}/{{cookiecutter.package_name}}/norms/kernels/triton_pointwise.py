"""weight * f(alpha * x + shift) + bias with f tanh or erf, forward and backward, as Triton kernels.

Legend: x is (M, N) and contiguous; tiles are (BLOCK_M, BLOCK_N). The arithmetic is fp32 whatever x is. N is compiled
in, so that the compiler knows which masks are always true and how rows are aligned; M is not. Offsets of a tile are
64 bits wide, those within it 32. `None` for a pointer leaves out what it stands for.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .curves import curve, curve_and_slope, slope_scale

OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # Triton 3.10 no longer fuses a * b + c by itself
# Backward's programs have to run all at once: those that wait for a place would run late and nearly alone. So many, by
# bytes an element, share the 65536 registers of a multiprocessor; more would spill.
PROGRAMS = {2: 5, 4: 4}
BACKWARD_OPTIONS = {size: OPTIONS | {"maxnreg": 65536 // (n * 128) // 8 * 8} for size, n in PROGRAMS.items()}


@triton.jit(do_not_specialize=["M"])
def _forward(
    x_ptr,
    alpha_ptr,
    shift_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    M,
    N: tl.constexpr,
    ERF: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    low: tl.constexpr = x_ptr.dtype.element_ty.primitive_bitwidth < 32
    across: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    row = (tl.program_id(0) // across).to(tl.int64) * BLOCK_M
    rows = tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) % across * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (rows < M - row)[:, None] & (columns < N)[None, :]
    tile = rows[:, None] * N + columns[None, :]
    u = tl.load(x_ptr + row * N + tile, mask=mask).to(tl.float32) * tl.load(alpha_ptr).to(tl.float32)
    if shift_ptr is not None:
        u += tl.load(shift_ptr).to(tl.float32)
    y = curve(u, ERF, low)
    if weight_ptr is not None:
        y *= tl.load(weight_ptr + columns, mask=columns < N).to(tl.float32)[None, :]
    if bias_ptr is not None:
        y += tl.load(bias_ptr + columns, mask=columns < N).to(tl.float32)[None, :]
    tl.store(y_ptr + row * N + tile, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["M"])
def _backward(
    dy_ptr,
    x_ptr,
    alpha_ptr,
    shift_ptr,
    weight_ptr,
    dx_ptr,
    sums_ptr,
    M,
    N: tl.constexpr,
    ERF: tl.constexpr,
    ALPHA: tl.constexpr,
    SHIFT: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """dx, and in the row of sums_ptr (groups, 2 * N + 2 * across) of each program's group its share of the sums.

    A program keeps to its BLOCK_N columns and takes two tiles of rows at a time, so that their loads overlap.
    """
    low: tl.constexpr = x_ptr.dtype.element_ty.primitive_bitwidth < 32
    across: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    group = tl.program_id(0) // across
    part = tl.program_id(0) % across
    groups = tl.num_programs(0) // across
    rows = tl.arange(0, BLOCK_M)
    columns = part * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (columns < N)[None, :]
    tile = rows[:, None] * N + columns[None, :]
    alpha = tl.load(alpha_ptr).to(tl.float32)
    shift = 0.0 if shift_ptr is None else tl.load(shift_ptr).to(tl.float32)
    # What is the same in all rows of a column waits until the rows are added up.
    scale = slope_scale(ERF)
    if weight_ptr is not None:
        scale *= tl.load(weight_ptr + columns, mask=columns < N).to(tl.float32)[None, :]
    alpha_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    shift_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    weight_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    bias_sum = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for row in range(group.to(tl.int64) * (2 * BLOCK_M), M, groups * (2 * BLOCK_M)):
        upper = (rows < M - row)[:, None] & inside
        lower = (rows + BLOCK_M < M - row)[:, None] & inside
        first = row * N
        second = first + BLOCK_M * N
        dy0 = tl.load(dy_ptr + first + tile, mask=upper, other=0).to(tl.float32)
        x0 = tl.load(x_ptr + first + tile, mask=upper, other=0).to(tl.float32)
        dy1 = tl.load(dy_ptr + second + tile, mask=lower, other=0).to(tl.float32)
        x1 = tl.load(x_ptr + second + tile, mask=lower, other=0).to(tl.float32)
        f0, slope0 = curve_and_slope(x0 * alpha + shift, ERF, low)
        f1, slope1 = curve_and_slope(x1 * alpha + shift, ERF, low)
        du0 = dy0 * slope0
        du1 = dy1 * slope1
        if dx_ptr is not None:
            tl.store(dx_ptr + first + tile, (du0 * (alpha * scale)).to(dx_ptr.dtype.element_ty), mask=upper)
            tl.store(dx_ptr + second + tile, (du1 * (alpha * scale)).to(dx_ptr.dtype.element_ty), mask=lower)
        if ALPHA:
            alpha_sum = alpha_sum + du0 * x0 + du1 * x1
        if SHIFT:
            shift_sum = shift_sum + du0 + du1
        if WEIGHT:
            weight_sum = weight_sum + dy0 * f0 + dy1 * f1
        if BIAS:
            bias_sum = bias_sum + dy0 + dy1
    sums_ptr += group * (2 * N + 2 * across)
    if WEIGHT:
        tl.store(sums_ptr + columns, tl.sum(weight_sum, 0), mask=columns < N)
    if BIAS:
        tl.store(sums_ptr + N + columns, tl.sum(bias_sum, 0), mask=columns < N)
    if ALPHA:
        tl.store(sums_ptr + 2 * N + part, tl.sum(tl.sum(alpha_sum * scale, 0), 0))
    if SHIFT:
        tl.store(sums_ptr + 2 * N + across + part, tl.sum(tl.sum(shift_sum * scale, 0), 0))


@triton.jit
def _column_sums(sums_ptr, groups, width, columns, mask, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK, columns.shape[0]), tl.float32)
    for group in range(0, groups, BLOCK):
        rows = group + tl.arange(0, BLOCK)
        wanted = (rows < groups)[:, None] & mask[None, :]
        total += tl.load(sums_ptr + rows[:, None] * width + columns[None, :], mask=wanted, other=0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["groups"])
def _reduce(
    sums_ptr,
    dalpha_ptr,
    dshift_ptr,
    dweight_ptr,
    dbias_ptr,
    groups,
    N: tl.constexpr,
    ACROSS: tl.constexpr,
    ACROSS_UP: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Adds up the rows of what `_backward` left: program 0 alpha and shift, the others COLUMNS of weight and bias."""
    width: tl.constexpr = 2 * N + 2 * ACROSS
    if tl.program_id(0) == 0:
        parts = tl.arange(0, ACROSS_UP)
        if dalpha_ptr is not None:
            sums = _column_sums(sums_ptr + 2 * N, groups, width, parts, parts < ACROSS, BLOCK)
            tl.store(dalpha_ptr, tl.sum(sums, 0).to(dalpha_ptr.dtype.element_ty))
        if dshift_ptr is not None:
            sums = _column_sums(sums_ptr + 2 * N + ACROSS, groups, width, parts, parts < ACROSS, BLOCK)
            tl.store(dshift_ptr, tl.sum(sums, 0).to(dshift_ptr.dtype.element_ty))
    else:
        columns = (tl.program_id(0) - 1) * COLUMNS + tl.arange(0, COLUMNS)
        if dweight_ptr is not None:
            sums = _column_sums(sums_ptr, groups, width, columns, columns < N, BLOCK)
            tl.store(dweight_ptr + columns, sums.to(dweight_ptr.dtype.element_ty), mask=columns < N)
        if dbias_ptr is not None:
            sums = _column_sums(sums_ptr + N, groups, width, columns, columns < N, BLOCK)
            tl.store(dbias_ptr + columns, sums.to(dbias_ptr.dtype.element_ty), mask=columns < N)


def forward(
    x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
) -> Tensor:
    x = x.contiguous()
    weight, bias = (None if vector is None else vector.contiguous() for vector in (weight, bias))
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel() == 0:
        return y
    rows, width = _shape(x, weight is None and bias is None)
    # Enough to keep loads in flight, unless fewer programs than a large GPU has multiprocessors would be left.
    tile = 8192 // x.element_size() if x.numel() > 2**20 else 1024
    block_m, block_n = _blocks(width, tile)
    grid = (triton.cdiv(rows, block_m) * triton.cdiv(width, block_n),)
    with _on(x):
        _forward[grid](x, alpha, shift, weight, bias, y, rows, width, curve == "erf", block_m, block_n, **OPTIONS)
    return y


def backward(
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    shift: Tensor | None,
    weight: Tensor | None,
    outputs: list[Tensor | None],
    curve: str,
) -> None:
    """Fills outputs, the gradients of x, alpha, shift, weight and bias, but for those that are None."""
    dx, dalpha, dshift, dweight, dbias = outputs
    if x.numel() == 0:
        for output in outputs:
            if output is not None:
                output.zero_()
        return
    dy, x = dy.contiguous(), x.contiguous()
    weight = None if weight is None else weight.contiguous()
    rows, width = _shape(x, weight is None and dbias is None)
    block_m, block_n = _blocks(width, 1024)
    across = triton.cdiv(width, block_n)
    groups = min(triton.cdiv(rows, 2 * block_m), max(1, _programs(x) // across))
    sums = torch.empty(groups, 2 * width + 2 * across, dtype=torch.float32, device=x.device)
    wanted = [output is not None for output in outputs[1:]]
    with _on(x):
        _backward[(groups * across,)](
            dy,
            x,
            alpha,
            shift,
            weight,
            dx,
            sums,
            rows,
            width,
            curve == "erf",
            *wanted,
            block_m,
            block_n,
            **BACKWARD_OPTIONS[x.element_size()],
        )
        if any(wanted):
            columns = 16
            vectors = triton.cdiv(width, columns) if dweight is not None or dbias is not None else 0
            block = min(256, triton.next_power_of_2(groups))
            across_up = triton.next_power_of_2(across)
            _reduce[(1 + vectors,)](
                sums, dalpha, dshift, dweight, dbias, groups, width, across, across_up, block, columns, **OPTIONS
            )


def _shape(x: Tensor, anywhere: bool) -> tuple[int, int]:
    """Rows and columns to see x as: its own, or where no vector tells its columns apart what tiles fit best."""
    width = 256 if anywhere and x.numel() % 256 == 0 else x.shape[-1]
    return x.numel() // width, width


def _blocks(width: int, elements: int) -> tuple[int, int]:
    """A tile of `elements` elements, its columns the power of 2 up to 256 that leaves the fewest of them empty."""
    widest = min(256, triton.next_power_of_2(width))
    block_n = min((widest, 128, 64), key=lambda n: (triton.cdiv(width, n) * n, -n)) if width > 64 else widest
    return max(1, elements // block_n), block_n


def _programs(x: Tensor) -> int:
    """How many of backward's programs run at once."""
    if not x.is_cuda:
        return 4
    return PROGRAMS[x.element_size()] * torch.cuda.get_device_properties(x.device).multi_processor_count


def _on(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device: make it x's."""
    elsewhere = x.is_cuda and x.device.index != torch.cuda.current_device()
    return torch.cuda.device(x.device) if elsewhere else nullcontext()
