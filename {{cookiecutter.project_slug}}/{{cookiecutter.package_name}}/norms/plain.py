"""The point-wise norms in torch's own operators, for every device and dtype.

Eager, on the CPU, the rows of a large x go through in chunks that stay in the cache, in memory that is used again:
16-bit input needs wide intermediates, and fresh memory of that size costs more than the arithmetic.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

CHUNK = 2**17  # elements a thread: an intermediate of 512 KiB
SMALL = 2**16  # elements below which whole tensors are quicker: each operator's start counts for more than the cache


def pointwise(
    x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
) -> Tensor:
    """weight * curve(alpha * x + shift) + bias, curve being tanh or erf; shapes as in `norms.dyt`."""
    if under_torch_func():
        f = getattr(torch, curve)(_inner(x, alpha, shift))  # torch.func knows each operator's derivatives
        y = f if weight is None else f * weight
        return (y if bias is None else y + bias).to(x.dtype)
    return _Pointwise.apply(x, alpha, shift, weight, bias, curve)


def gradients(
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    curve: str,
) -> tuple[Tensor | None, ...]:
    """Of x, alpha, shift, weight and bias, in operators that autograd can differentiate.

    They overwrite only what it will not ask for.
    """
    u = _inner(x, alpha, shift)
    dy = dy.to(u.dtype)
    if curve == "tanh":
        f = u.tanh_()
        du = torch.ops.aten.tanh_backward(dy, f)  # dy * (1 - f * f) in one pass
    else:
        f = u.erf()
        du = dy * u.square().neg_().exp_()
        du.mul_(2 / math.sqrt(math.pi))
    dweight = None if weight is None else _sum_like(weight, dy * f)
    dbias = None if bias is None else _sum_like(bias, dy)
    if weight is not None:
        du.mul_(weight)
    dshift = None if shift is None else _sum_like(shift, du)
    dalpha = _sum_like(alpha, du * x)
    return (du * alpha).to(x.dtype), dalpha, dshift, dweight, dbias


def under_torch_func() -> bool:
    """Whether torch.func, eager, transforms what is called."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def has_storage(tensor: Tensor) -> bool:
    """vmap's tensors have none of their own."""
    return torch._C._has_storage(tensor)


class _Pointwise(torch.autograd.Function):
    """Saves x; backward computes curve(alpha * x + shift) anew.

    Without `setup_context`, for whose sake torch would spend 50 us on each call, three times the rest on one token.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
    ) -> Tensor:
        ctx.save_for_backward(x, alpha, shift, weight, bias)
        ctx.curve = curve
        if _chunked(x, alpha, shift, weight, bias):
            return _forward_in_chunks(x, alpha, shift, weight, bias, curve)
        return _formula(x, alpha, shift, weight, bias, curve)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, shift, weight, bias = ctx.saved_tensors
        if _chunked(dy, x, alpha, shift, weight, bias):
            needed = ctx.needs_input_grad
            return *_gradients_in_chunks(dy, x, alpha, shift, weight, bias, ctx.curve, needed), None
        return *gradients(dy, x, alpha, shift, weight, bias, ctx.curve), None


def _formula(
    x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
) -> Tensor:
    u = _inner(x, alpha, shift)
    y = u.tanh_() if curve == "tanh" else u.erf_()
    y = y if weight is None else y.mul_(weight)
    y = y if bias is None else y.add_(bias)
    return y.to(x.dtype)


def _inner(x: Tensor, alpha: Tensor, shift: Tensor | None) -> Tensor:
    """alpha * x + shift, at least in fp32 and in memory of its own."""
    u = x * alpha.to(torch.promote_types(x.dtype, torch.float32))
    return u if shift is None else u.add_(shift)


def _sum_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    return gradient.sum_to_size(parameter.shape).to(parameter.dtype)


def _chunked(x: Tensor, *others: Tensor | None) -> bool:
    """Whether x is large, on the CPU, eager, and no compiler, transform or second backward has to see each operator."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or x.numel() < SMALL:
        return False
    return all(
        t is None or (t.device.type == "cpu" and type(t) in (Tensor, nn.Parameter) and has_storage(t))
        for t in (x, *others)
    )


def _forward_in_chunks(
    x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
) -> Tensor:
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    wide = torch.promote_types(x.dtype, torch.float32)
    alpha = alpha.to(wide)
    shift, weight, bias = (None if t is None else t.to(wide) for t in (shift, weight, bias))
    (spare,), chunks = _chunks(1, wide, x, y)
    for part, out in chunks:
        u = out if y.dtype == wide else spare[: len(part)]
        torch.mul(part, alpha, out=u)
        if shift is not None:
            u.add_(shift)
        if curve == "erf":
            u.erf_()
        elif x.dtype == wide:  # from expm1, in two thirds of tanh's time; off by 2e-7 of the value
            divisor = spare[: len(part)]
            u.mul_(2).clamp_(max=40).expm1_()
            u.div_(torch.add(u, 2, out=divisor))
        else:  # in a quarter of it; off by 2e-7 at most, which in 16 bits does not show
            u.mul_(2).sigmoid_().mul_(2).sub_(1)
        if weight is not None:
            u.mul_(weight)
        if bias is not None:
            u.add_(bias)
        if u is not out:
            out.copy_(u)
    return y


def _gradients_in_chunks(
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    curve: str,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """`gradients`, those that are needed. The slope lacks its constant factor up to the end."""
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    wide = torch.promote_types(x.dtype, torch.float32)
    wide_alpha = alpha.to(wide)
    wide_shift, wide_weight = (None if t is None else t.to(wide) for t in (shift, weight))
    factor = 4 if curve == "tanh" else 2 / math.sqrt(math.pi)
    sums = [torch.zeros(n, dtype=wide) for n in (1, 1, x.shape[-1], x.shape[-1])]
    spares, chunks = _chunks(4, wide, dy, x, dx)
    for part_dy, part_x, out in chunks:
        u, du, d, v = (spare[: len(out)] for spare in spares)
        d, v = (d.copy_(part_dy), v.copy_(part_x)) if x.dtype != wide else (part_dy, part_x)
        torch.mul(v, wide_alpha, out=u)
        if wide_shift is not None:
            u.add_(wide_shift)
        if curve == "tanh":  # tanh(u) is 2 * s - 1 with s = sigmoid(2 * u), its slope 4 * s * (1 - s)
            torch.ops.aten.sigmoid_backward.grad_input(d, u.mul_(2).sigmoid_(), grad_input=du)
        else:
            torch.mul(u, u, out=du).neg_().exp_().mul_(d)
        if wide_weight is not None:
            du.mul_(wide_weight)
        if needed[1]:
            sums[0] += torch.dot(du.flatten(), v.flatten())
        if needed[2]:
            sums[1] += du.sum()
        if needed[3]:
            f = u.mul_(2).sub_(1) if curve == "tanh" else u.erf_()
            sums[2] += f.mul_(d).sum(0)
        if needed[4]:
            sums[3] += d.sum(0)
        if needed[0]:
            out.copy_(du.mul_(wide_alpha * factor))
    sums[0] *= factor
    sums[1] *= factor
    found = zip((x, alpha, shift, weight, bias), (dx, *sums), needed, strict=False)
    return tuple(g.to(t.dtype) if t is not None and need else None for t, g, need in found)


def _chunks(count: int, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, Iterator[tuple[Tensor, ...]]]:
    """`count` spare matrices as large as the first chunk, and the chunks of rows of `tensors`."""
    width = tensors[0].shape[-1]
    rows = max(1, CHUNK * torch.get_num_threads() // width)
    matrices = [tensor.reshape(-1, width) for tensor in tensors]
    spares = torch.empty(count, min(rows, len(matrices[0])), width, dtype=dtype)
    return spares, zip(*(matrix.split(rows) for matrix in matrices), strict=True)
