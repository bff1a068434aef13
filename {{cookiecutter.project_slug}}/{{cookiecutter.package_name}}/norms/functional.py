"""DyT and Derf as functions. Of the input's size, both save the input itself for backward and nothing else."""

import torch
from torch import Tensor

from . import kernels, plain
from .checks import known_kernel


def dyt(
    x: Tensor, alpha: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, kernel: str = "auto"
) -> Tensor:
    """weight * tanh(alpha * x) + bias (Zhu et al. 2025, arXiv 2503.10622).

    x is (..., dim) of any floating dtype, alpha (1,), weight and bias (dim,). The output has x's shape and dtype, every
    gradient the dtype of its tensor; the arithmetic is fp32, or float64 for float64 input. Differentiable twice.

    Args:
        kernel: `triton`, `plain`, or `auto`: Triton's where it can run, but under torch.compile the formula, which
            the compiler fuses with what stands around it. docs/kernels.md says more.

    Raises:
        ValueError: another shape.
        UsageError: no such kernel, or `triton` where it cannot run.
    """
    return _pointwise(x, alpha, None, weight, bias, "tanh", kernel)


def derf(
    x: Tensor,
    alpha: Tensor,
    shift: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    kernel: str = "auto",
) -> Tensor:
    """weight * erf(alpha * x + shift) + bias (Chen et al. 2025, arXiv 2512.10938); shift is (1,), else as dyt."""
    return _pointwise(x, alpha, shift, weight, bias, "erf", kernel)


def _pointwise(
    x: Tensor,
    alpha: Tensor,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    curve: str,
    kernel: str,
) -> Tensor:
    if not x.is_floating_point() or x.ndim == 0:
        raise ValueError(f"x must be floating point of shape (..., dim), not {x.dtype} of {tuple(x.shape)}")
    _check_shape((1,), alpha=alpha, shift=shift)
    _check_shape(x.shape[-1:], weight=weight, bias=bias)
    function = kernels.fused if _takes_triton(known_kernel(kernel), x) else plain.pointwise
    return function(x, alpha, shift, weight, bias, curve)


def _takes_triton(kernel: str, x: Tensor) -> bool:
    if kernel == "auto":  # the cheapest questions come first: this is asked at every call
        return x.is_cuda and not torch.compiler.is_compiling() and kernels.obstacle(x) is None
    if kernel == "triton":
        kernels.check(x)
    return kernel == "triton"


def _check_shape(shape: tuple[int, ...], **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must have shape {tuple(shape)}, not {tuple(tensor.shape)}")
