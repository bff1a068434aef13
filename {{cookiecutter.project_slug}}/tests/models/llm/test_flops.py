"""The FLOPs of a Llama, against the formula that people use."""

import pytest
import torch

from {{cookiecutter.package_name}}.callbacks.flops import training_flops
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.train import build_model


@pytest.mark.parametrize("norm", ["rmsnorm", "dyt", "derf"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_six_n_and_attention(norm: str, kv_heads: int) -> None:
    """6 N + 12 L d T per token, N the weights of all matrices but the embedding (arXiv 2204.02311, appendix B)."""
    depth, width, length = 3, 64, 32
    sizes = {"depth": depth, "embed_dim": width, "num_heads": 4, "num_kv_heads": kv_heads, "mlp_dim": 96}
    argv = [f"model.{key}={value}" for key, value in sizes.items()]
    argv += ["model.checkpointing=true", "data.vocab_size=257", f"data.context={length}"]
    model = build_model(compose(["task=llm", f"norm={norm}", *argv]), "meta")
    weights = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and not name.startswith("embed"))
    tokens = torch.zeros(4, length, dtype=torch.long)
    assert training_flops(model, [tokens]) == length * (6 * weights + 12 * depth * width * length)
