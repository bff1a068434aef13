"""The fused kernels as an operator of torch, which torch.compile, torch.export and meta tensors see as one node."""

import functools
import importlib.util
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .. import plain

# Triton reads the variable when it is imported: a process either compiles its kernels or runs them on the CPU.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
INSTALLED = importlib.util.find_spec("triton") is not None
_NAME = f"{__name__.partition('.')[0]}::pointwise"


def obstacle(x: Tensor) -> str | None:
    """Why the kernels cannot take x, or None. Without a GPU they take meta tensors, and all in Triton's interpreter."""
    if not INSTALLED:
        return "Triton is not installed; it comes with PyTorch's CUDA builds for Linux"
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"its kernels take float32, bfloat16 and float16, not {str(x.dtype).removeprefix('torch.')}"
    if not (x.is_cuda or x.is_meta or INTERPRETED):
        return f"its kernels take tensors of an NVIDIA GPU, not of {x.device.type}"
    if torch.compiler.is_compiling():
        return None
    if torch._C._are_functorch_transforms_active():
        return "torch.func cannot transform its kernels"
    if type(x) not in (Tensor, nn.Parameter):
        return f"its kernels take plain tensors, not a {type(x).__name__}"
    return _lack(x.device.index) if x.is_cuda else None


@functools.cache
def _lack(device: int) -> str | None:
    if torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0):
        return None
    return f"its kernels are for NVIDIA GPUs from Ampere on, not for {torch.cuda.get_device_name(device)}"


@functools.cache
def _kernels() -> ModuleType:
    from . import triton_pointwise

    return triton_pointwise


def fused(
    x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
) -> Tensor:
    """weight * curve(alpha * x + shift) + bias, curve being tanh or erf; shapes as in `norms.dyt`."""
    if torch.compiler.is_compiling() or x.is_meta:
        return pointwise(x, alpha, shift, weight, bias, curve)
    return _Eager.apply(x, alpha, shift, weight, bias, curve)


@torch.library.custom_op(_NAME, mutates_args=())
def pointwise(
    x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
) -> Tensor:
    """As `fused`."""
    return _kernels().forward(x, alpha, shift, weight, bias, curve)


@torch.library.custom_op(f"{_NAME}_backward", mutates_args=())
def pointwise_backward(
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    curve: str,
    needed: Sequence[bool],
) -> list[Tensor]:
    """Of x, alpha, shift, weight and bias the gradients that are needed, in this order."""
    gradients = _gradients(dy, x, alpha, shift, weight, bias, curve, needed)
    return [gradient for gradient in gradients if gradient is not None]


@pointwise.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@pointwise_backward.register_fake
def _(dy: Tensor, *inputs: Any) -> list[Tensor]:
    *tensors, _, needed = inputs
    return [gradient for gradient in _like(*tensors, needed=needed) if gradient is not None]


def _gradients(dy: Tensor, *inputs: Any) -> list[Tensor | None]:
    *tensors, curve, needed = inputs
    gradients = _like(*tensors, needed=needed)
    _kernels().backward(dy, *tensors[:-1], gradients, curve)
    return gradients


def _like(*tensors: Tensor | None, needed: Sequence[bool]) -> list[Tensor | None]:
    return [
        torch.empty_like(tensor, memory_format=torch.contiguous_format) if wanted and tensor is not None else None
        for tensor, wanted in zip(tensors, needed, strict=True)
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.curve = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, dy: Tensor, direct: bool = False) -> tuple[Tensor | None, ...]:
    x, alpha, shift, weight, bias = tensors = ctx.saved_tensors
    batched = direct and not torch._C._has_storage(dy)  # by `is_grads_batched`
    if torch.is_grad_enabled() or batched:  # torch has to see operators, to differentiate or to map them
        return *plain.gradients(dy, x, alpha, shift, weight, bias, ctx.curve), None
    needed = [tensor is not None and need for tensor, need in zip(tensors, ctx.needs_input_grad, strict=False)]
    if direct:
        return *_gradients(dy, *tensors, ctx.curve, needed), None
    computed = iter(pointwise_backward(dy, x, alpha, shift, weight, bias, ctx.curve, needed))
    return *(next(computed) if wanted else None for wanted in needed), None


pointwise.register_autograd(_backward, setup_context=_setup_context)


class _Eager(torch.autograd.Function):
    """Calls the kernels itself: the operator takes 0.1 ms more of the CPU for forward and backward, longer than a GPU
    computes on a small x."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        _setup_context(ctx, inputs, inputs[0])
        y: Tensor = _kernels().forward(*inputs)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, dy, direct=not torch.compiler.is_compiling())
