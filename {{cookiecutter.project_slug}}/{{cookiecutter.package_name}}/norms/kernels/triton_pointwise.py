"""weight * f(alpha * x + shift) + bias with f tanh or erf, forward and backward, as Triton kernels.

Legend: x is (M, N) and contiguous; tiles are (BLOCK_M, BLOCK_N). The arithmetic is fp32 whatever x is. N is compiled
in, so that the compiler knows which masks are always true and how rows are aligned; M is not. Offsets of a tile are
64 bits wide, those within it 32. `None` for a pointer leaves out what it stands for.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .curves import curve, curve_and_slope, slope_scale
from .triton_reduce import OPTIONS, reduce, row_of_sums

# Backward's programs have to run all at once: those that wait for a place would run late and nearly alone. So many, by
# bytes an element, share the 65536 registers of a multiprocessor; more would spill.
PROGRAMS = {2: 5, 4: 4}
BACKWARD_OPTIONS = {size: OPTIONS | {"maxnreg": 65536 // (n * 128) // 8 * 8} for size, n in PROGRAMS.items()}
WIDEST = 256  # columns of a tile
TILE_BYTES = 8192  # of a tile of forward: enough to keep loads in flight
SMALL = 2**20  # elements of x up to which such tiles would be fewer than a large GPU has multiprocessors
TILE = 1024  # elements of a tile then, and of backward, which holds two of them and their sums


@triton.jit(do_not_specialize=["M"], do_not_specialize_on_alignment=["alpha_ptr", "shift_ptr"])
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


@triton.jit(do_not_specialize=["M"], do_not_specialize_on_alignment=["alpha_ptr", "shift_ptr"])
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
        scale *= tl.load(weight_ptr + columns, mask=columns < N, other=0).to(tl.float32)[None, :]
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
    if sums_ptr is not None:
        sums_ptr += group * (2 * N + 2 * across)
    if WEIGHT:
        tl.store(sums_ptr + columns, tl.sum(weight_sum, 0), mask=columns < N)
    if BIAS:
        tl.store(sums_ptr + N + columns, tl.sum(bias_sum, 0), mask=columns < N)
    if ALPHA:
        tl.store(sums_ptr + 2 * N + part, tl.sum(tl.sum(alpha_sum * scale, 0), 0))
    if SHIFT:
        tl.store(sums_ptr + 2 * N + across + part, tl.sum(tl.sum(shift_sum * scale, 0), 0))


def forward(
    x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
) -> Tensor:
    x = x.contiguous()
    weight, bias = (None if vector is None else vector.contiguous() for vector in (weight, bias))
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel() == 0:
        return y
    rows, width = _shape(x, weight is None and bias is None)
    block_m, block_n = blocks(width, TILE_BYTES // x.element_size() if x.numel() > SMALL else TILE)
    grid = (triton.cdiv(rows, block_m) * triton.cdiv(width, block_n),)
    constants = {"N": width, "ERF": curve == "erf", "BLOCK_M": block_m, "BLOCK_N": block_n}
    with _on(x):
        _forward[grid](x, alpha, shift, weight, bias, y, rows, **constants, **OPTIONS)
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
    block_m, block_n = blocks(width, TILE)
    across = triton.cdiv(width, block_n)
    groups = even(triton.cdiv(rows, 2 * block_m), _programs(x.device, x.element_size()) // across)
    wanted = {"ALPHA": dalpha, "SHIFT": dshift, "WEIGHT": dweight, "BIAS": dbias}
    constants = {"N": width, "ERF": curve == "erf", "BLOCK_M": block_m, "BLOCK_N": block_n}
    constants |= {name: output is not None for name, output in wanted.items()}
    sums = None
    if any(output is not None for output in wanted.values()):
        sums = torch.empty(groups, row_of_sums(width, across), dtype=torch.float32, device=x.device)
    options = BACKWARD_OPTIONS[x.element_size()]
    with _on(x):
        _backward[(groups * across,)](dy, x, alpha, shift, weight, dx, sums, rows, **constants, **options)
        if sums is not None:
            reduce(sums, width, across, dalpha, dshift, dweight, dbias)


def _shape(x: Tensor, anywhere: bool) -> tuple[int, int]:
    """Rows and columns to see x as: its own, or where no vector tells its columns apart what tiles fit best."""
    width = WIDEST if anywhere and x.numel() % WIDEST == 0 else x.shape[-1]
    return x.numel() // width, width


def blocks(width: int, elements: int) -> tuple[int, int]:
    """Rows and columns of a tile of `elements`: of columns a power of 2 that leaves few of them empty, to a sixteenth.

    Among equals the widest. Narrow tiles want loads of several elements: of an odd width they would spill registers.
    """
    widest = min(WIDEST, triton.next_power_of_2(width))
    narrower = [n for n in ((128, 64, 32) if width % 4 == 0 else (128,)) if n < widest]
    columns = min([widest, *narrower], key=lambda n: (triton.cdiv(width, n) * n * 16 // width, -n))
    return max(1, elements // columns), columns


def even(tiles: int, at_most: int) -> int:
    """How many groups share the tiles evenly, in as few rounds as `at_most` of them would take."""
    rounds = triton.cdiv(tiles, max(1, at_most))
    return triton.cdiv(tiles, rounds)


@cache
def _programs(device: torch.device, itemsize: int) -> int:
    """How many of backward's programs run at once, x having elements of `itemsize` bytes."""
    if device.type != "cuda":
        return 4  # the interpreter runs one after the other: enough that small shapes have several groups and rounds
    return PROGRAMS[itemsize] * torch.cuda.get_device_properties(device).multi_processor_count


def _on(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device: make it x's."""
    elsewhere = x.is_cuda and x.device.index != torch.cuda.current_device()
    return torch.cuda.device(x.device) if elsewhere else nullcontext()
