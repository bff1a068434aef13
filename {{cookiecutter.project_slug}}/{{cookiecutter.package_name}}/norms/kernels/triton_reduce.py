"""The second kernel of backward: adds up the rows that the groups of programs of the first one leave."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl
from torch import Tensor

OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # Triton 3.10 no longer fuses a * b + c by itself
COLUMNS = 16  # that a program adds up
ROWS = 256  # of them at a time, at most


@triton.jit
def _column_sums(sums_ptr, groups, width, columns, mask, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK, columns.shape[0]), tl.float32)
    for group in range(0, groups, BLOCK):
        rows = group + tl.arange(0, BLOCK)
        wanted = (rows < groups)[:, None] & mask[None, :]
        total += tl.load(sums_ptr + rows[:, None] * width + columns[None, :], mask=wanted, other=0)
    return tl.sum(total, 0)


@triton.jit
def _scalar_and_vector(
    scalar_sums_ptr,
    vector_sums_ptr,
    scalar_ptr,
    vector_ptr,
    groups,
    width,
    N: tl.constexpr,
    ACROSS: tl.constexpr,
    ACROSS_UP: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Program 0 adds up the scalar, the others COLUMNS of the vector each."""
    if tl.program_id(0) == 0:
        if scalar_ptr is not None:
            parts = tl.arange(0, ACROSS_UP)
            total = tl.sum(_column_sums(scalar_sums_ptr, groups, width, parts, parts < ACROSS, BLOCK), 0)
            tl.store(scalar_ptr, total.to(scalar_ptr.dtype.element_ty))
    else:
        if vector_ptr is not None:  # the names of the other branch's tensors would have to be of their shapes
            columns = (tl.program_id(0) - 1) * COLUMNS + tl.arange(0, COLUMNS)
            totals = _column_sums(vector_sums_ptr, groups, width, columns, columns < N, BLOCK)
            tl.store(vector_ptr + columns, totals.to(vector_ptr.dtype.element_ty), mask=columns < N)


@triton.jit(do_not_specialize=["groups"], do_not_specialize_on_alignment=["dalpha_ptr", "dshift_ptr"])
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
    """The grid's second axis: 0 is alpha and weight, 1 shift and bias."""
    width: tl.constexpr = 2 * N + 2 * ACROSS
    scalars = sums_ptr + 2 * N
    if tl.program_id(1) == 0:
        _scalar_and_vector(
            scalars, sums_ptr, dalpha_ptr, dweight_ptr, groups, width, N, ACROSS, ACROSS_UP, BLOCK, COLUMNS
        )
    else:
        _scalar_and_vector(
            scalars + ACROSS, sums_ptr + N, dshift_ptr, dbias_ptr, groups, width, N, ACROSS, ACROSS_UP, BLOCK, COLUMNS
        )


def row_of_sums(width: int, across: int) -> int:
    """Numbers in a row: the sums of weight and of bias by column, then those of alpha and of shift by program."""
    return 2 * (width + across)


def reduce(
    sums: Tensor,
    width: int,
    across: int,
    dalpha: Tensor | None,
    dshift: Tensor | None,
    dweight: Tensor | None,
    dbias: Tensor | None,
) -> None:
    """Fills those that are not None from `sums`, (groups, row_of_sums)."""
    vectors = 0 if dweight is None and dbias is None else triton.cdiv(width, COLUMNS)
    _reduce[(1 + vectors, 2)](
        sums,
        dalpha,
        dshift,
        dweight,
        dbias,
        len(sums),
        N=width,
        ACROSS=across,
        ACROSS_UP=triton.next_power_of_2(across),
        BLOCK=min(ROWS, triton.next_power_of_2(len(sums))),
        COLUMNS=COLUMNS,
        **OPTIONS,
    )
