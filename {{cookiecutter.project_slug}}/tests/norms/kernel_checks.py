"""What the tests of the kernels share: where they run, and inputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from {{cookiecutter.package_name}}.norms.kernels import op

DEVICE = "cuda" if torch.cuda.is_available() and not op.INTERPRETED else "cpu"
NEEDS_TRITON = [
    *([pytest.mark.gpu] if DEVICE == "cuda" else []),
    pytest.mark.skipif(DEVICE == "cpu" and not op.INTERPRETED, reason="needs an NVIDIA GPU, or TRITON_INTERPRET=1"),
]


def arguments(
    name: str, shape=(5, 12), dtype=torch.float32, affine=("weight", "bias"), std=2.0, parameters=torch.float32
) -> dict[str, Tensor]:
    generator = torch.Generator(DEVICE).manual_seed(0)
    tensors = {"x": (std * torch.randn(*shape, generator=generator, device=DEVICE)).to(dtype)}
    tensors |= {"alpha": torch.tensor([0.7]), "shift": torch.tensor([-0.3])}
    tensors |= {key: torch.randn(shape[-1], generator=generator, device=DEVICE) for key in ("weight", "bias")}
    wanted = ("x", "alpha", *(["shift"] if name == "derf" else []), *affine)
    return {key: tensors[key].to(DEVICE, dtype if key == "x" else parameters).requires_grad_() for key in wanted}


def results(function: Callable[..., Tensor], tensors: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    y = function(**tensors, **options)
    dy = torch.randint(-127, 128, y.shape, generator=torch.Generator().manual_seed(1)).to(y.device, y.dtype) / 64
    return {"y": y.detach(), **dict(zip(tensors, torch.autograd.grad(y, list(tensors.values()), dy), strict=True))}


def double(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().double().requires_grad_() for key, tensor in tensors.items()}
