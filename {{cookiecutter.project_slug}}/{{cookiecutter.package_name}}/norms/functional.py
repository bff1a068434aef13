"""DyT and Derf as functions. Of the input's size, both save the input itself for backward and nothing else."""

import math
from typing import Any

import torch
from torch import Tensor


def dyt(x: Tensor, alpha: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """weight * tanh(alpha * x) + bias (Zhu et al. 2025, arXiv 2503.10622).

    x is (..., dim) of any floating dtype, alpha (1,), weight and bias (dim,). The output has x's shape and dtype, every
    gradient the dtype of its tensor; the arithmetic is fp32, or float64 for float64 input. Differentiable twice.

    Raises:
        ValueError: another shape.
    """
    return _pointwise(x, alpha, None, weight, bias, "tanh")


def derf(x: Tensor, alpha: Tensor, shift: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """weight * erf(alpha * x + shift) + bias (Chen et al. 2025, arXiv 2512.10938); shift is (1,), else as dyt."""
    return _pointwise(x, alpha, shift, weight, bias, "erf")


def _pointwise(
    x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
) -> Tensor:
    if not x.is_floating_point() or x.ndim == 0:
        raise ValueError(f"x must be floating point of shape (..., dim), not {x.dtype} of {tuple(x.shape)}")
    _check_shape((1,), alpha=alpha, shift=shift)
    _check_shape(x.shape[-1:], weight=weight, bias=bias)
    if not torch.is_grad_enabled():  # `apply` takes 50 us, three times the rest of a call on one token
        return _Pointwise.forward(x, alpha, shift, weight, bias, curve)
    return _Pointwise.apply(x, alpha, shift, weight, bias, curve)


class _Pointwise(torch.autograd.Function):
    """weight * f(u) + bias with u = alpha * x + shift and f tanh or erf; backward computes f(u) anew."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
    ) -> Tensor:
        u = _inner(x, alpha, shift)
        y = u.tanh_() if curve == "tanh" else u.erf_()
        if weight is not None:
            y.mul_(weight)
        if bias is not None:
            y.add_(bias)
        return y.to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.curve = inputs
        ctx.save_for_backward(*tensors)

    # For second derivatives autograd differentiates these lines: they overwrite only what it will not ask for.
    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, shift, weight, bias = ctx.saved_tensors
        u = _inner(x, alpha, shift)
        dy = dy.to(u.dtype)
        if ctx.curve == "tanh":
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
        return (du * alpha).to(x.dtype), dalpha, dshift, dweight, dbias, None


def _inner(x: Tensor, alpha: Tensor, shift: Tensor | None) -> Tensor:
    """alpha * x + shift, at least in fp32 and in memory of its own."""
    u = x * alpha.to(torch.promote_types(x.dtype, torch.float32))
    return u if shift is None else u.add_(shift)


def _sum_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    return gradient.sum_to_size(parameter.shape).to(parameter.dtype)


def _check_shape(shape: tuple[int, ...], **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}, not {tuple(tensor.shape)}")
