"""Our LLaMA as Hugging Face's `transformers` has it, and back: the names of its weights, and its config.

With RMSNorm and nothing beyond, it is their LlamaForCausalLM. Any other norm, q/k-norm or a scale of the embedding is
what llm_hf_modeling.py adds to that; the file travels with the weights, and is not imported here.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UsageError, require
from ...norms import make_norm
from .model import Llama, build

MODELING = Path(__file__).with_name("llm_hf_modeling.py")
NORMS = ("bn", "derf", "dyt", "ln", "none", "rmsnorm")  # those that it has

# What each part of a name is there.
NAMES = {
    "embed": "embed_tokens",
    "embed_scale": "embed_tokens.scale",
    "blocks": "layers",
    "attn_norm": "input_layernorm",
    "attn": "self_attn",
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "out": "o_proj",
    "q_norm": "q_proj.norm",
    "k_norm": "k_proj.norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn": "mlp",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}


def hf_name(name: str) -> str:
    """The name of a weight of ours in `transformers`."""
    if name.startswith("head."):
        return f"lm_{name}"
    return ".".join(("model", *(NAMES.get(part, part) for part in name.split("."))))


def hf_state(net: Llama) -> dict[str, Tensor]:
    """The weights by their names there; a tied head is left out, as it is there."""
    state = net.state_dict()
    return {hf_name(name): one.contiguous() for name, one in state.items() if name != "head.weight" or not net.tied}


def hf_config(model: Mapping[str, Any], norm: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """What config.json says of a net.

    Args:
        model: the section of the config.
        norm: likewise.

    Raises:
        UsageError: a norm that llm_hf_modeling.py does not have.
    """
    name, eps = norm["name"], norm.get("eps", 1e-6)
    require(name in NORMS, f"norm={name}: {MODELING.name} has {', '.join(NORMS)}; add it there, and to {__name__}")
    plain = name == "rmsnorm" and not model["qk_norm"] and not model["embed_scale"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model["vocab_size"],
        "hidden_size": model["embed_dim"],
        "intermediate_size": model["mlp_dim"],
        "num_hidden_layers": model["depth"],
        "num_attention_heads": model["num_heads"],
        "num_key_value_heads": model["num_kv_heads"],
        "head_dim": model["embed_dim"] // model["num_heads"],
        "hidden_act": "silu",
        "max_position_embeddings": model["context"],
        "rms_norm_eps": eps,
        "rope_theta": model["rope_base"],
        "rope_parameters": {"rope_type": "default", "rope_theta": model["rope_base"]},
        "tie_word_embeddings": model["tied"],
        "dtype": str(dtype).removeprefix("torch."),
    }
    if plain:
        return config
    classes = {"AutoConfig": "NormLlamaConfig", "AutoModelForCausalLM": "NormLlamaForCausalLM"}
    return config | {
        "architectures": ["NormLlamaForCausalLM"],
        "model_type": "norm_llama",
        "auto_map": {auto: f"{MODELING.stem}.{ours}" for auto, ours in classes.items()},
        "norm": name,
        "norm_eps": eps,
        "qk_norm": model["qk_norm"],
        "embed_scale": model["embed_scale"],
    }


def load_hf(folder: Path) -> Llama:
    """The net of a folder that `transformers` or export.py wrote, as config.json and *.safetensors.

    Raises:
        UsageError: no such files, or a model that ours does not compute.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    require((folder / "config.json").is_file() and bool(files), f"{folder}: expected config.json and *.safetensors")
    try:
        config = json.loads((folder / "config.json").read_bytes())
        _check_config(folder, config)
        net = _net(config)
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{folder}: its config.json is none of a LLaMA: {error!r}") from error
    try:
        weights = {name: one for file in files for name, one in load_file(file).items()}
        if net.tied:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        net.load_state_dict({name: weights[hf_name(name)] for name in net.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise UsageError(f"{folder}: its weights do not fit its config.json") from error
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{folder}: its weights cannot be read: {error}") from error
    return net


def _net(config: Mapping[str, Any]) -> Llama:
    name, eps = config.get("norm", "rmsnorm"), config.get("norm_eps", config.get("rms_norm_eps", 1e-6))
    rope = config.get("rope_parameters") or {}
    heads = config["num_attention_heads"]
    return build(
        partial(make_norm, name, **({"eps": eps} if name in ("bn", "ln", "rmsnorm") else {})),
        vocab_size=config["vocab_size"],
        context=config["max_position_embeddings"],
        embed_dim=config["hidden_size"],
        depth=config["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        mlp_dim=config["intermediate_size"],
        tied=config.get("tie_word_embeddings", False),
        qk_norm=config.get("qk_norm", False),
        rope_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        embed_scale=config.get("embed_scale", False),
        init="normal",
        head_gain=1.0,
        loss_chunk=0,
    )


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises UsageError if it says something that our net does otherwise."""
    known, kind = ("llama", "norm_llama"), config.get("model_type")
    require(kind in known, f"{folder}: config.json says model_type={kind}, and our net is a llama")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    expected = {
        "hidden_act": (config.get("hidden_act", "silu"), ("silu",)),
        "attention_bias": (config.get("attention_bias", False), (False,)),
        "mlp_bias": (config.get("mlp_bias", False), (False,)),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), ("default",)),
        "head_dim": (
            config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
            (config["hidden_size"] // config["num_attention_heads"],),
        ),
    }
    for key, (value, right) in expected.items():
        require(value in right, f"{folder}: config.json says {key}={value}, and our net has {right[0]}")
