"""A LLaMA with another norm than RMSNorm, for Hugging Face's `transformers`.

`AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)` loads it. All but the norms and the scale of the
embedding is the library's own; attention with norms on queries and keys is its Qwen3Attention.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention


class NormLlamaConfig(LlamaConfig):
    """A LlamaConfig with the norm, norms on queries and keys, and the scale of the embedding."""

    model_type = "norm_llama"

    norm: str = "dyt"
    norm_eps: float = 1e-6
    alpha_per: str = "layer"
    qk_norm: bool = False
    embed_scale: bool = False


class NormLlamaForCausalLM(LlamaForCausalLM):
    """A LlamaForCausalLM whose norms, and embedding if it is scaled, are those of the config."""

    config_class = NormLlamaConfig
    _keep_in_fp32_modules_strict = ["alpha", "shift"]  # noqa: RUF012 (near 0.5 bf16 has steps of 0.004)

    def __init__(self, config: Any) -> None:  # a NormLlamaConfig, which has what a Qwen3Config has
        super().__init__(config)

        def norm(dim: int) -> nn.Module:
            made = NORMS[config.norm](dim, config.norm_eps)
            if isinstance(made, Pointwise) and config.alpha_per != "layer":
                made.alpha = nn.Parameter(torch.ones(dim)) if config.alpha_per == "channel" else None
            return made

        for index, layer in enumerate(self.model.layers):
            layer.input_layernorm = norm(config.hidden_size)
            layer.post_attention_layernorm = norm(config.hidden_size)
            if config.qk_norm:
                layer.self_attn = Qwen3Attention(config, index)
                layer.self_attn.q_norm = norm(layer.self_attn.head_dim)
                layer.self_attn.k_norm = norm(layer.self_attn.head_dim)
        self.model.norm = norm(config.hidden_size)
        if config.embed_scale:
            self.model.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size)
        self.post_init()


class Pointwise(nn.Module):
    """scale * weight * curve(alpha * x + shift), computed in fp32, in x's dtype."""

    def __init__(self, dim: int, curve: Callable[[Tensor], Tensor], shift: bool, scale: float = 1.0) -> None:
        super().__init__()
        self.curve, self.scale = curve, scale
        self.alpha: nn.Parameter | None = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1)) if shift else None
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        u = x.float()
        u = u if self.alpha is None else u * self.alpha
        u = u if self.shift is None else u + self.shift
        return (self.curve(u) * (self.weight * self.scale)).to(x.dtype)


class TokenBatchNorm(nn.Module):
    """A BatchNorm over all tokens, with the statistics of training in eval mode."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(dim, eps)
        self.bn.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x.flatten(0, -2)).view(x.shape)


class ScaledEmbedding(nn.Embedding):
    """An embedding times a learned scalar."""

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__(vocab_size, dim)
        self.scale = nn.Parameter(torch.full((1,), dim**0.5))

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.scale


def isru(u: Tensor) -> Tensor:
    return u * torch.rsqrt(1 + u * u)


NORMS: dict[str, Callable[[int, float], nn.Module]] = {
    "dyt": lambda dim, eps: Pointwise(dim, torch.tanh, shift=False),
    "derf": lambda dim, eps: Pointwise(dim, torch.erf, shift=True),
    "isru": lambda dim, eps: Pointwise(dim, isru, shift=False),
    "dyisru": lambda dim, eps: Pointwise(dim, isru, shift=False, scale=dim**0.5),
    "arctan": lambda dim, eps: Pointwise(dim, lambda u: torch.atan(u) * (2 / torch.pi), shift=False),
    "softsign": lambda dim, eps: Pointwise(dim, nn.functional.softsign, shift=False),
    "hardtanh": lambda dim, eps: Pointwise(dim, nn.functional.hardtanh, shift=False),
    "sigmoid": lambda dim, eps: Pointwise(dim, torch.sigmoid, shift=False),
    "expsign": lambda dim, eps: Pointwise(dim, lambda u: u.sign() * -torch.expm1(-u.abs()), shift=False),
    "rmsnorm": LlamaRMSNorm,
    "ln": lambda dim, eps: nn.LayerNorm(dim, eps, bias=False),
    "bn": TokenBatchNorm,
    "none": lambda dim, eps: nn.Identity(),
}
