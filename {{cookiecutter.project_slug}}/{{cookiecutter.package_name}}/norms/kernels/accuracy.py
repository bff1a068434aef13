"""Errors of dyt and derf against float64: `python -m <package>.norms.kernels.accuracy`.

With TRITON_INTERPRET=1 before it, on a machine without a GPU, it also runs the Triton kernels.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..functional import derf, dyt
from .op import obstacle

STDS = (0.1, 1.0, 10.0, 100.0)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def errors(curve: str, kernel: str, dtype: torch.dtype, std: float, rows: int = 1024) -> dict[str, tuple[float, float]]:
    """Largest and mean error of y, of dx, and of the parameters' gradients, x being (rows, 96) of this std.

    They are absolute for y and dx, which are of order 1, and for parameters in parts of the largest gradient.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(rows, 96, generator=generator) for _ in range(2))
    tensors = [(std * x).to(dtype), torch.tensor([0.5]), torch.tensor([0.1])]
    tensors += [1 + torch.randn(96, generator=generator) / 4 for _ in range(2)]
    if curve == "dyt":
        del tensors[2]
    tensors = [tensor.to(device).requires_grad_() for tensor in tensors]
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    u = exact[0] * exact[1] + (exact[2] if curve == "derf" else 0)
    expected = (torch.erf(u) if curve == "derf" else torch.tanh(u)) * exact[-2] + exact[-1]
    function: Callable[..., Tensor] = derf if curve == "derf" else dyt
    y = function(*tensors, kernel=kernel)
    dy = dy.to(device, dtype)
    gradients = torch.autograd.grad(y, tensors, dy)
    references = torch.autograd.grad(expected, exact, dy.double())
    pairs = list(zip(gradients, references, strict=True))
    relative = [(g.double() - r).abs() / r.abs().max() for g, r in pairs[1:]]
    return {
        "y": _largest_and_mean((y.double() - expected).abs()),
        "gradient of x": _largest_and_mean((gradients[0].double() - references[0]).abs()),
        "gradients of parameters": _largest_and_mean(torch.cat(relative)),
    }


def table() -> Iterator[str]:
    kernels = [kernel for kernel in ("plain", "triton") if kernel == "plain" or _triton_runs()]
    yield "| | " + " | ".join(f"std {std:g}" for std in STDS) + " |"
    yield "|---|" + "---|" * len(STDS)
    runs = [(kernel, curve, dtype) for kernel in kernels for curve in ("dyt", "derf") for dtype in DTYPES]
    found = {run: [errors(run[1], run[0], run[2], std) for std in STDS] for run in runs}
    for what in "y", "gradient of x", "gradients of parameters":
        for kernel, curve, dtype in runs:
            cells = " | ".join("{:.0e} ({:.0e})".format(*one[what]) for one in found[kernel, curve, dtype])
            yield f"| {what}, {curve}, {kernel}, {str(dtype).removeprefix('torch.')} | {cells} |"


def _triton_runs() -> bool:
    return obstacle(torch.empty(1, device="cuda" if torch.cuda.is_available() else "cpu")) is None


def _largest_and_mean(error: Tensor) -> tuple[float, float]:
    return error.max().item(), error.mean().item()


if __name__ == "__main__":
    for line in table():
        print(line)
