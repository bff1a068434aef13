"""Norms and inputs that the tests of this folder share."""

from typing import Any

import torch
from torch import Tensor, nn

from {{cookiecutter.package_name}}.norms import make_norm

DIM = 8
# One norm of each kind, for tests of models; point-wise norms that differ in their curve alone have isru for them.
KINDS = ("bhyt", "bn", "derf", "dyisru", "dyt", "gn", "isru", "ln", "none", "rmsnorm")
CAUSAL = tuple(kind for kind in KINDS if kind != "gn")  # gn takes statistics over all tokens of a sample


def build(name: str, **options: Any) -> Any:
    return make_norm(name, DIM, **options)


def tokens(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0)) + 1).to(dtype)


def randomize_(norm: Any) -> Any:
    for parameter in norm.parameters():
        parameter.data = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    return norm


def shake_norms(model: nn.Module) -> None:
    """Moves the norms' weights and biases away from where they start."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.5 * torch.rand(parameter.shape, generator=generator))
