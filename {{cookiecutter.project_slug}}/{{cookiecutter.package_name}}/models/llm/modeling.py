"""A LLaMA whose norms are not RMSNorm, for Hugging Face's `transformers`: AutoModelForCausalLM.from_pretrained(folder,
trust_remote_code=True). All but the norms and a scale of the embedding is the library's own."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm


class NormLlamaConfig(LlamaConfig):
    """A LlamaConfig with the name of the norm, the eps of its own, and what there is beyond a LLaMA."""

    model_type = "norm_llama"

    norm: str = "dyt"
    norm_eps: float = 1e-6
    qk_norm: bool = False
    embed_scale: bool = False


class NormLlamaForCausalLM(LlamaForCausalLM):
    config_class = NormLlamaConfig
    _keep_in_fp32_modules_strict = ["alpha", "shift"]  # noqa: RUF012 (near 0.5 bf16 has steps of 0.004)

    def __init__(self, config: NormLlamaConfig) -> None:
        super().__init__(config)

        def norm(dim: int) -> nn.Module:
            return NORMS[config.norm](dim, config.norm_eps)

        for layer in self.model.layers:
            layer.input_layernorm = norm(config.hidden_size)
            layer.post_attention_layernorm = norm(config.hidden_size)
            if config.qk_norm:
                attn, dim = layer.self_attn, layer.self_attn.head_dim
                attn.q_proj, attn.k_proj = (NormedHeads(one, dim, norm(dim)) for one in (attn.q_proj, attn.k_proj))
        self.model.norm = norm(config.hidden_size)
        if config.embed_scale:
            self.model.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size)
        self.post_init()


class Pointwise(nn.Module):
    """weight * curve(alpha * x + shift), in fp32 and back in x's dtype."""

    def __init__(self, dim: int, curve: Callable[[Tensor], Tensor], shift: bool) -> None:
        super().__init__()
        self.curve = curve
        self.alpha = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1)) if shift else None
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        u = x.float() * self.alpha
        u = u if self.shift is None else u + self.shift
        return (self.curve(u) * self.weight).to(x.dtype)


class TokenBatchNorm(nn.Module):
    """With the statistics of the training, in eval mode."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(dim, eps)
        self.bn.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x.flatten(0, -2)).view(x.shape)


class NormedHeads(nn.Linear):
    """The projection to queries or keys, with a norm over each head."""

    def __init__(self, linear: nn.Linear, head_dim: int, norm: nn.Module) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.head_dim, self.norm = head_dim, norm

    def forward(self, x: Tensor) -> Tensor:
        heads = super().forward(x).unflatten(-1, (-1, self.head_dim))  # (B, T, H, E)
        return self.norm(heads).flatten(-2)


class ScaledEmbedding(nn.Embedding):
    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__(vocab_size, dim)
        self.scale = nn.Parameter(torch.full((1,), dim**0.5))

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.scale


NORMS: dict[str, Callable[[int, float], nn.Module]] = {
    "dyt": lambda dim, eps: Pointwise(dim, torch.tanh, shift=False),
    "derf": lambda dim, eps: Pointwise(dim, torch.erf, shift=True),
    "rmsnorm": LlamaRMSNorm,
    "ln": lambda dim, eps: nn.LayerNorm(dim, eps, bias=False),
    "bn": TokenBatchNorm,
    "none": lambda dim, eps: nn.Identity(),
}
