"""Conversion between this LLaMA and Hugging Face's `transformers`: config.json and weights.

With RMSNorm and no extras a model is transformers' LlamaForCausalLM. Any other norm, norms on queries and keys, or a
scaled embedding need modeling_norm_llama.py, which is copied beside the weights and never imported here.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ...norms import PointwiseNorm, make_norm
from ...norms.registry import options_of
from .model import Llama, build

MODELING = Path(__file__).with_name("modeling_norm_llama.py")
MODELING_NORMS = (  # the norms of that file
    *("arctan", "bn", "derf", "dyisru", "dyt", "expsign", "hardtanh", "isru", "ln", "none", "rmsnorm", "sigmoid"),
    "softsign",
)
KEYS = {  # of config.json, and of section `model`
    "vocab_size": "vocab_size",
    "max_position_embeddings": "context",
    "hidden_size": "embed_dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "intermediate_size": "mlp_dim",
    "tie_word_embeddings": "tied",
}


def hf_name(name: str) -> str:
    """Returns transformers' name of a parameter of `Llama`."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def hf_state(model: Llama) -> dict[str, Tensor]:
    """Returns the weights under transformers' names, without a tied head."""
    state = {hf_name(name): one.contiguous() for name, one in model.state_dict().items()}
    for name, norm in model.named_modules():
        if isinstance(norm, PointwiseNorm) and norm.running_square is not None:  # folded into alpha
            del state[hf_name(f"{name}.running_square")]
            state[hf_name(f"{name}.alpha")] = cast(Tensor, norm.effective_alpha()).detach()
    if model.tied:
        del state["lm_head.weight"]
    return state


def hf_config(model: Mapping[str, Any], norm: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Returns the content of config.json for the sections `model` and `norm` of a config, and the weights' dtype.

    Raises:
        ValueError: a norm or a residual connection that modeling_norm_llama.py does not have.
    """
    name, eps, alpha_per = norm["name"], norm.get("eps", 1e-6), norm.get("alpha_per", "layer")
    if name not in MODELING_NORMS:
        known = ", ".join(MODELING_NORMS)
        raise ValueError(f"norm {name} cannot be exported: {MODELING.name} has {known}; add it there and here")
    if norm.get("scale", "weight") != "weight" or model["qk_norm"] not in ("none", "same"):
        raise ValueError(f"{MODELING.name} has norms with weights, and those of the blocks on queries and keys")
    if (model["residual"], model["norm_placement"]) != ("plain", "pre"):
        raise ValueError(f"{MODELING.name} has pre-norm blocks with plain residual connections alone")
    config = {key: model[ours] for key, ours in KEYS.items()} | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": model["embed_dim"] // model["num_heads"],
        "hidden_act": "silu",
        "rms_norm_eps": eps,
        "rope_theta": model["rope_base"],
        "rope_parameters": {"rope_type": "default", "rope_theta": model["rope_base"]},
        "dtype": str(dtype).removeprefix("torch."),
    }
    if name == "rmsnorm" and model["qk_norm"] == "none" and not model["embed_scale"]:
        return config
    classes = {"AutoConfig": "NormLlamaConfig", "AutoModelForCausalLM": "NormLlamaForCausalLM"}
    return config | {
        "architectures": ["NormLlamaForCausalLM"],
        "model_type": "norm_llama",
        "auto_map": {auto: f"{MODELING.stem}.{cls}" for auto, cls in classes.items()},
        "norm": name,
        "norm_eps": eps,
        "alpha_per": "layer" if norm.get("running_scale") and alpha_per == "none" else alpha_per,
        "qk_norm": model["qk_norm"] == "same",
        "embed_scale": model["embed_scale"],
    }


def load_pretrained(folder: str, model: Mapping[str, Any]) -> Llama:
    """Returns the model of a folder with config.json and *.safetensors, by `transformers` or export.py.

    Args:
        model: section `model` of the config; not used.

    Raises:
        ValueError: files are missing or damaged, or the folder holds a model that `Llama` does not compute.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    root = Path(folder).expanduser()
    files = sorted(root.glob("*.safetensors"))
    if not (root / "config.json").is_file() or not files:
        raise ValueError(f"{folder}: expected a folder with config.json and *.safetensors")
    try:
        llama = from_config(json.loads((root / "config.json").read_bytes()))
        weights = {name: one for file in files for name, one in load_file(file).items()}
        if llama.tied:
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        llama.load_state_dict({name: weights[hf_name(name)] for name in llama.state_dict()})
    except (AttributeError, KeyError, RuntimeError, SafetensorError, TypeError) as error:
        raise ValueError(f"{folder}: weights and config.json are not those of a LLaMA: {error!r}") from error
    return llama


def from_config(config: Mapping[str, Any]) -> Llama:
    """Returns a model for the content of a config.json, with weights of its own.

    Raises:
        ValueError: it describes a model that `Llama` does not compute.
    """
    heads, rope = config["num_attention_heads"], config.get("rope_parameters") or config.get("rope_scaling") or {}
    head_dim = config["hidden_size"] // heads
    found_and_expected = {
        "model_type": (config.get("model_type"), ("llama", "norm_llama")),
        "hidden_act": (config.get("hidden_act", "silu"), ("silu",)),
        "attention_bias": (config.get("attention_bias", False), (False,)),
        "mlp_bias": (config.get("mlp_bias", False), (False,)),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), ("default",)),
        "head_dim": (config.get("head_dim") or head_dim, (head_dim,)),
    }
    for key, (found, expected) in found_and_expected.items():
        if found not in expected:
            raise ValueError(f"config.json has {key}={found}; expected {' or '.join(map(str, expected))}")
    sizes = {"tie_word_embeddings": False, **config, "num_key_value_heads": config.get("num_key_value_heads") or heads}
    name, eps = config.get("norm", "rmsnorm"), config.get("norm_eps", config.get("rms_norm_eps", 1e-6))
    options = {"eps": eps} if name in ("bn", "ln", "rmsnorm") else {}
    if "alpha_per" in options_of(name):
        options["alpha_per"] = config.get("alpha_per", "layer")
    return build(
        partial(make_norm, name, **options),
        **{ours: sizes[key] for key, ours in KEYS.items()},
        qk_norm="same" if config.get("qk_norm") else "none",
        rope_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
        embed_scale=config.get("embed_scale", False),
        init="normal",
    )
