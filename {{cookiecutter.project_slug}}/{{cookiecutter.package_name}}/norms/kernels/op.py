"""The fused kernels as an operator of torch, which torch.compile, torch.export and meta tensors see as one node."""

import importlib.util
import os
import warnings
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UsageError, first_line
from .. import plain

# Triton reads the variable when it is imported: a process either compiles its kernels or runs them on the CPU.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
INSTALLED = importlib.util.find_spec("triton") is not None
LONGEST = 2**20  # numbers in a row: in far longer ones the 32 bits of an offset in a tile would overflow
_NAME = f"{__name__.partition('.')[0]}::pointwise"


def obstacle(x: Tensor) -> str | None:
    """Why the kernels cannot take x, or None. Without a GPU they take meta tensors, and all in Triton's interpreter."""
    if not INSTALLED:
        return "Triton is not installed; it comes with PyTorch's CUDA builds for Linux"
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"its kernels take float32, bfloat16 and float16, not {str(x.dtype).removeprefix('torch.')}"
    if not (x.is_cuda or x.is_meta or INTERPRETED):
        return f"its kernels take tensors of an NVIDIA GPU, not of {x.device.type}"
    if torch.compiler.is_compiling():  # which cannot ask the device; the operator does
        return None
    if x.shape[-1] > LONGEST:
        return f"its kernels take rows of at most {LONGEST} numbers, not of {x.shape[-1]}"
    if plain.under_torch_func():
        return "torch.func cannot transform its kernels"
    if type(x) not in (Tensor, nn.Parameter):
        return f"its kernels take plain tensors, not a {type(x).__name__}"
    return _lack(x.device) if x.is_cuda else None


def check(x: Tensor) -> None:
    """Raises UsageError if the kernels cannot take x."""
    if why := obstacle(x):
        raise UsageError(f"norm.kernel=triton: {why}; choose auto or plain")


@cache
def _lack(device: torch.device) -> str | None:
    """Why this GPU cannot run the kernels. They are tried on one number: Triton wants a C compiler, a cache and more.

    Where only that fails, it warns, for the sake of those who leave the choice to `auto`: their GPU could do better.
    """
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return f"its kernels are for NVIDIA GPUs from Ampere on, not for {torch.cuda.get_device_name(device)}"
    one = torch.ones(1, device=device)
    try:
        _kernels().forward(one, one, None, None, None, "tanh")
    except Exception as error:
        why = f"its kernels do not compile here: {first_line(error)}"
        warnings.warn(f"norm.kernel=auto takes the formula, not Triton: {why}", stacklevel=2)
        return why
    return None


@cache
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
    """weight * curve(alpha * x + shift) + bias, of x's shape and dtype."""
    check(x)
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
def _(
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    curve: str,
    needed: Sequence[bool],
) -> list[Tensor]:
    return [gradient for gradient in _like((x, alpha, shift, weight, bias), needed) if gradient is not None]


def _gradients(
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    curve: str,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Of x, alpha, shift, weight and bias, None where not needed."""
    gradients = _like((x, alpha, shift, weight, bias), needed)
    _kernels().backward(dy, x, alpha, shift, weight, gradients, curve)
    return gradients


def _like(tensors: Sequence[Tensor | None], needed: Sequence[bool]) -> list[Tensor | None]:
    return [
        torch.empty_like(tensor, memory_format=torch.contiguous_format) if wanted and tensor is not None else None
        for tensor, wanted in zip(tensors, needed, strict=True)
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, alpha, shift, weight, bias, ctx.curve = inputs
    ctx.save_for_backward(x, alpha, shift, weight, bias)


def _backward(ctx: Any, dy: Tensor, direct: bool = False) -> tuple[Tensor | None, ...]:
    x, alpha, shift, weight, bias = tensors = ctx.saved_tensors
    batched = direct and not plain.has_storage(dy)  # by `is_grads_batched`
    if torch.is_grad_enabled() or batched:  # torch has to see operators, to differentiate or to map them
        return *plain.gradients(dy, x, alpha, shift, weight, bias, ctx.curve), None
    needed = [tensor is not None and need for tensor, need in zip(tensors, ctx.needs_input_grad, strict=False)]
    if direct:
        return *_gradients(dy, x, alpha, shift, weight, bias, ctx.curve, needed), None
    computed = iter(pointwise_backward(dy, x, alpha, shift, weight, bias, ctx.curve, needed))
    return *(next(computed) if wanted else None for wanted in needed), None


pointwise.register_autograd(_backward, setup_context=_setup_context)


class _Eager(torch.autograd.Function):
    """Calls the kernels itself: the operator takes 0.1 ms more of the CPU for forward and backward, longer than a GPU
    computes on a small x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None, curve: str
    ) -> Tensor:
        _setup_context(ctx, (x, alpha, shift, weight, bias, curve), x)
        y: Tensor = _kernels().forward(x, alpha, shift, weight, bias, curve)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, dy, direct=not torch.compiler.is_compiling())
