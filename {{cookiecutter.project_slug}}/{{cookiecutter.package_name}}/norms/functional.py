"""DyT, Derf and their relatives as functions: weight * f(alpha * x + shift) + bias, for the curves f of `CURVES`.

For backward they keep x and nothing else of its size. On an NVIDIA GPU dyt and derf take the Triton kernels of
`_kernels.py`; elsewhere, and for other curves, torch's operators do the work.
"""

import importlib.util
import math
import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNELS = ("auto", "triton", "plain")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton then runs its kernels on the CPU


def dyt(
    x: Tensor, alpha: Tensor | None, weight: Tensor | None = None, bias: Tensor | None = None, kernel: str = "auto"
) -> Tensor:
    """Returns weight * tanh(alpha * x) + bias (Zhu et al. 2025, arXiv 2503.10622), with the shape and dtype of x.

    Computes in fp32, or in float64 for float64 input. Differentiable twice.

    Args:
        x: (..., dim), of any floating dtype.
        alpha: (1,), (dim,) for one in each channel, or None, which leaves it out.
        weight, bias: (dim,).
        kernel: "triton" (for an alpha of shape (1,)), "plain" (torch's operators), or "auto": Triton where it can run.
            torch.compile, torch.export and torch.func always see the formula.

    Raises:
        ValueError: another shape or dtype, no such kernel, or "triton" where it cannot run.
    """
    return _pointwise("tanh", x, alpha, None, weight, bias, kernel)


def derf(
    x: Tensor,
    alpha: Tensor | None,
    shift: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    kernel: str = "auto",
) -> Tensor:
    """Returns weight * erf(alpha * x + shift) + bias (Chen et al. 2025, arXiv 2512.10938).

    shift is (1,); the rest is as in dyt.
    """
    return _pointwise("erf", x, alpha, shift, weight, bias, kernel)


def pointwise(
    curve: str,
    x: Tensor,
    alpha: Tensor | None,
    shift: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Returns weight * f(alpha * x + shift) + bias, where `curve` names f in CURVES; the rest is as in dyt and derf."""
    if curve not in CURVES:
        raise ValueError(f"there is no curve {curve}; choose from {', '.join(CURVES)}")
    return _pointwise(curve, x, alpha, shift, weight, bias, "plain")


class Curve(NamedTuple):
    """A function f of u = alpha * x + shift.

    Attributes:
        formula: f(u), in operators that torch.compile fuses.
        eager: f(u) in a faster way without a compiler; it may overwrite u.
        backward: f(u) and dy * f'(u) of u and dy, faster than torch's derivative of the formula.
    """

    formula: Callable[[Tensor], Tensor]
    eager: Callable[[Tensor], Tensor] | None = None
    backward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None


def _tanh(u: Tensor) -> Tensor:
    """Returns tanh(u) as (exp(2u) - 1) / (exp(2u) + 1); at 20 it is 1.

    On a CPU torch's tanh takes ten times as long as its sigmoid and three times as long as its expm1 (fp32, one
    thread).
    """
    e = u.mul_(2).clamp_(max=40).expm1_()
    return e.div_(e + 2)


def _tanh_backward(u: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    s = u.mul_(2).sigmoid_()
    return (2 * s).sub_(1), torch.ops.aten.sigmoid_backward(dy, s).mul_(4)  # the slope is 4 s (1 - s)


def _erf_backward(u: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    return u.erf(), (dy * (u * u).neg_().exp_()).mul_(2 / math.sqrt(math.pi))


# Functions of the DyT and Derf papers (arXiv 2503.10622, table 8; 2512.10938).
CURVES = {
    "tanh": Curve(torch.tanh, _tanh, _tanh_backward),
    "erf": Curve(torch.erf, torch.erf_, _erf_backward),
    "isru": Curve(lambda u: u * torch.rsqrt(u * u + 1)),
    "arctan": Curve(lambda u: torch.atan(u) * (2 / math.pi)),
    "softsign": Curve(F.softsign),
    "hardtanh": Curve(F.hardtanh),
    "sigmoid": Curve(torch.sigmoid),
    "expsign": Curve(lambda u: torch.expm1(-u.abs()) * -u.sign()),
}


def known_kernel(kernel: str) -> str:
    """Returns `kernel`, or raises ValueError if it is none of KERNELS."""
    if kernel not in KERNELS:
        raise ValueError(f"there is no kernel {kernel}; choose {', '.join(KERNELS[:-1])} or {KERNELS[-1]}")
    return kernel


def triton_obstacle(x: Tensor, alpha: Tensor | None) -> str | None:
    """Returns why the Triton kernels cannot take `x` and `alpha`, or None if they can."""
    if alpha is None or alpha.numel() != 1:
        return "the kernels take one alpha for all channels"
    if not (x.is_cuda or INTERPRETED):
        return f"the kernels take tensors on an NVIDIA GPU, not on {x.device.type}"
    if x.dtype not in DTYPES:
        return f"the kernels take float32, bfloat16 and float16, not {x.dtype}"
    if type(x) not in (Tensor, nn.Parameter):
        return f"the kernels take plain tensors, not a {type(x).__name__}"
    return _device_obstacle(x.device)


def _pointwise(
    curve: str,
    x: Tensor,
    alpha: Tensor | None,
    shift: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    kernel: str,
) -> Tensor:
    if not x.is_floating_point() or x.ndim == 0:
        raise ValueError(f"x must be floating point of shape (..., dim), not {x.dtype} of {tuple(x.shape)}")
    one, dim = (1,), tuple(x.shape[-1:])
    for name, tensor, shapes in (
        ("alpha", alpha, (one, dim)),
        ("shift", shift, (one,)),
        ("weight", weight, (dim,)),
        ("bias", bias, (dim,)),
    ):
        if tensor is not None and tensor.shape not in shapes:
            raise ValueError(f"{name} must have shape {' or '.join(map(str, shapes))}, not {tuple(tensor.shape)}")
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        y = CURVES[curve].formula(_inner(x, alpha, shift))
        y = y if weight is None else y * weight
        return (y if bias is None else y + bias).to(x.dtype)
    if kernel == "triton" and (why := triton_obstacle(x, alpha)):
        raise ValueError(f"kernel=triton cannot run here: {why}; take auto or plain")
    triton = known_kernel(kernel) == "triton" or (kernel == "auto" and x.is_cuda and triton_obstacle(x, alpha) is None)
    return _Pointwise.apply(curve, x, alpha, shift, weight, bias, triton)


def _inner(x: Tensor, alpha: Tensor | None, shift: Tensor | None) -> Tensor:
    """Returns alpha * x + shift, at least in fp32 and in memory of its own."""
    wide = torch.promote_types(x.dtype, torch.float32)
    u = x.to(wide, copy=True) if alpha is None else x * alpha.to(wide)
    return u if shift is None else u.add_(shift)


class _Pointwise(torch.autograd.Function):
    """Saves x, and computes the curve again in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        curve: str,
        x: Tensor,
        alpha: Tensor | None,
        shift: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        triton: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, alpha, shift, weight, bias)
        ctx.curve, ctx.triton = CURVES[curve], triton
        if triton:
            return _kernels().forward(x, alpha, shift, weight, bias)
        y = (ctx.curve.eager or ctx.curve.formula)(_inner(x, alpha, shift))
        y = y if weight is None else y.mul_(weight)
        return (y if bias is None else y.add_(bias)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, shift, weight, bias = ctx.saved_tensors
        # torch must see its own operators to differentiate them, and to map them for `is_grads_batched`
        if ctx.triton and not torch.is_grad_enabled() and torch._C._has_storage(dy):
            return None, *_kernels().backward(dy, x, alpha, shift, weight, bias), None
        u = _inner(x, alpha, shift)
        dy = dy.to(u.dtype)
        if ctx.curve.backward is not None:
            f, du = ctx.curve.backward(u, dy)
        else:
            f, vjp = torch.func.vjp(ctx.curve.formula, u)[:2]
            (du,) = vjp(dy)
        dweight = None if weight is None else _sum_to(weight, dy * f)
        dbias = None if bias is None else _sum_to(bias, dy)
        du = du if weight is None else du.mul_(weight)  # in place: fresh memory costs more than the arithmetic
        dshift = None if shift is None else _sum_to(shift, du)
        dalpha = None if alpha is None else _sum_to(alpha, du * x)
        dx = du if alpha is None else du * alpha
        return None, dx.to(x.dtype), dalpha, dshift, dweight, dbias, None


def _sum_to(parameter: Tensor, gradient: Tensor) -> Tensor:
    return gradient.sum_to_size(parameter.shape).to(parameter.dtype)


def _kernels() -> Any:
    from . import _kernels as kernels  # imports Triton, for which others need not wait

    return kernels


@cache
def _device_obstacle(device: torch.device) -> str | None:
    """Returns why this device cannot run the kernels: they are tried on one number, since Triton wants a C compiler."""
    if not TRITON:
        return "Triton is not installed; it comes with PyTorch's CUDA builds for Linux"
    if device.type == "cuda" and (torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0)):
        return f"the kernels are for NVIDIA GPUs from Ampere on, not for {torch.cuda.get_device_name(device)}"
    one = torch.ones(1, device=device)
    try:
        _kernels().forward(one, one, None, None, None)
    except Exception as error:
        why = f"the kernels do not compile here: {str(error).partition(chr(10))[0]}"
        warnings.warn(f"DyT and Derf take the formula, not Triton: {why}", stacklevel=2)
        return why
    return None
