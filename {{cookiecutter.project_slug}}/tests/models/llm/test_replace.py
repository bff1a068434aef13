"""Norms replaced in models of transformers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from {{cookiecutter.package_name}}.norms import DyT, PointwiseNorm, replace_norms

from ...norms.common import shake_norms

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL)).eval()


def tokens() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize(
    "kind", [(LlamaConfig, LlamaForCausalLM), (Gemma2Config, Gemma2ForCausalLM)], ids=["llama", "gemma"]
)
def test_rmsnorm_computes_what_transformers_own_does(kind: tuple[Any, Any]) -> None:
    """Also where the old weight is added to 1, as in Gemma."""
    model = kind[1](kind[0](**SMALL)).eval()
    shake_norms(model)
    expected = model(**tokens()).logits
    names = replace_norms(model, "rmsnorm")
    assert len(names) == (5 if kind[0] is LlamaConfig else 9)
    assert not any(
        "RMSNorm" in type(module).__name__ and "norms" not in type(module).__module__ for module in model.modules()
    )
    torch.testing.assert_close(model(**tokens()).logits, expected, rtol=1e-4, atol=1e-5)


def test_calibrated_norms_are_nearer_to_the_old_model() -> None:
    expected = llama()(**tokens()).logits
    off = {}
    for calibrate in (None, tokens()):
        model = llama()
        replace_norms(model, "dyt", calibrate=calibrate)
        off[calibrate is None] = (model(**tokens()).logits - expected).norm().item()
    assert off[False] < 0.5 * off[True]


def test_norms_are_chosen_by_name_and_by_class() -> None:
    model = llama()
    assert replace_norms(model, DyT, r"model\.layers\.\d+\.input_layernorm") == [
        "model.layers.0.input_layernorm",
        "model.layers.1.input_layernorm",
    ]
    assert len(replace_norms(model, "ln", PointwiseNorm)) == 2
    assert sum(isinstance(module, nn.LayerNorm) for module in model.modules()) == 2
