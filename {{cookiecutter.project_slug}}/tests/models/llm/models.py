"""Small LLaMAs, and checkpoints that need no training."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.models.base import BaseModule
from {{cookiecutter.package_name}}.models.llm.model import Llama, build
from {{cookiecutter.package_name}}.norms import make_norm
from {{cookiecutter.package_name}}.train import build_module

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "context": 12,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "mlp_dim": 48,
}


def make(norm: str = "rmsnorm", seed: int = 0, device: str = "cpu", **changes: Any) -> Llama:
    torch.manual_seed(seed)
    return build(partial(make_norm, norm), device=device, **{**SIZES, **changes})


def some_tokens(rows: int = 3, length: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(seed))


def save_checkpoint(file: Path, argv: list[str]) -> BaseModule:
    """The task of this command line, saved as `train.py` would before its first step, but for what `shake` does."""
    cfg = compose(argv)
    task = build_module(cfg)
    shake(task)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"config": plain(cfg), "global_step": 0, "state_dict": task.state_dict()}, file)
    return task


@torch.no_grad()
def shake(module: nn.Module) -> None:
    """Moves every number that starts at 0 or 1 away from there, where a mistake could hide."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point() and not name.endswith("embed_tokens.scale"):
            tensor.add_(torch.rand(tensor.shape, generator=generator), alpha=0.5)
