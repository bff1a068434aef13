"""Folders of transformers as a LLaMA: weights, logits and generation; test_export.py has the other direction."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from {{cookiecutter.package_name}}.models.llm.generate import generate
from {{cookiecutter.package_name}}.models.llm.huggingface import load_pretrained
from {{cookiecutter.package_name}}.models.llm.model import Llama

from .models import shake, some_tokens


def theirs(**changes: Any) -> Any:
    """Returns a model of transformers, whose config is not made by our code."""
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=changes.get("num_kv_heads", 2),
        max_position_embeddings=12,
        rms_norm_eps=changes.get("eps", 1e-6),
        rope_parameters={"rope_type": "default", "rope_theta": changes.get("rope_base", 10000.0)},
        tie_word_embeddings=changes.get("tied", False),
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(2)
    return LlamaForCausalLM._from_config(config, attn_implementation="eager").eval()


@torch.no_grad()
def assert_same(ours: Llama, other: Any) -> None:
    tokens = some_tokens()
    torch.testing.assert_close(ours.eval()(tokens), other(tokens).logits, rtol=1e-5, atol=1e-5)
    prompt = some_tokens(2, 4)
    expected = other.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)[:, 4:]
    got = torch.stack(list(generate(ours, prompt, 8, temperature=0.0)), dim=1)
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    "changes",
    [{"tied": True}, {"num_kv_heads": 1, "eps": 0.3}, {"num_kv_heads": 4, "rope_base": 500.0, "tied": True}],
    ids=str,
)
def test_their_weights_here(tmp_path: Path, changes: dict[str, Any]) -> None:
    other = theirs(**changes)
    shake(other)
    other.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ours = load_pretrained(str(tmp_path), {})
    assert (ours.context, ours.tied) == (12, changes.get("tied", False))
    assert_same(ours, other)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model_type", "mistral", "model_type=mistral"),
        ("hidden_act", "gelu", "hidden_act=gelu"),
        ("attention_bias", True, "attention_bias=True"),
        ("rope_parameters", {"rope_type": "linear", "factor": 2.0}, "rope_type=linear"),
        ("head_dim", 16, "head_dim=16"),
        ("intermediate_size", 64, "LLaMA"),
        ("num_hidden_layers", 3, "LLaMA"),
    ],
)
def test_what_ours_does_not_compute_is_refused(tmp_path: Path, key: str, value: Any, words: str) -> None:
    theirs().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ValueError, match=words):
        load_pretrained(str(tmp_path), {})
    with pytest.raises(ValueError, match=r"config\.json"):
        load_pretrained(str(tmp_path / "nothing"), {})
