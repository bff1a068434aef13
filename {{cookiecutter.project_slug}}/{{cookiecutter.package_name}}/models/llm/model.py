"""A LLaMA (Touvron et al. 2023, arXiv 2302.13971) with the norm given at construction.

Notable features: pre-norm, rotary position embedding, grouped-query attention, SwiGLU, no biases, optional norms on
queries and keys, optional learned scale of the embedding, a loss that never holds all logits. Parameters have the names
of transformers' LlamaForCausalLM, less the prefix `model.`.

B batch, T tokens, S those and the cached ones before them, D width, H heads, G heads of keys and values, E width of a
head, F hidden width of the MLP, V vocabulary: (B, T) -> (B, T, V).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...norms import qk_norm_layer
from ...norms.precision import keep_fp32
from ..init import fan_in_, init_on_device, normal_, reset_norms_
from ..layers import Rope, apply_rotary_emb, checkpointed, rope_cos_sin
from ..residual import Residual

NormLayer = Callable[..., nn.Module]
IGNORE_INDEX = -100  # targets that the loss leaves out


class Llama(nn.Module):
    """A pre-norm decoder. `init_weights` draws its weights.

    Args: the keys of configs/model/llm_*.yaml, explained there, and
        norm_layer: called as `norm_layer(dim, site=..., bias=False)`.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        norm_layer: NormLayer,
        vocab_size: int,
        context: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        num_kv_heads: int,
        mlp_dim: int,
        tied: bool = False,
        qk_norm: str = "none",
        rope_base: float = 10000.0,
        embed_scale: bool = False,
        init: str = "fan_in",
        head_gain: float = 1.0,
        residual: str = "plain",
        norm_placement: str = "pre",
        loss_chunk: int = 0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.context, self.rope_base, self.head_dim = context, rope_base, embed_dim // num_heads
        self.tied, self.init, self.head_gain, self.residual = tied, init, head_gain, residual
        self.loss_chunk, self.checkpointing = loss_chunk, checkpointing
        self.embed_tokens = (ScaledEmbedding if embed_scale else nn.Embedding)(vocab_size, embed_dim)
        self.layers = nn.ModuleList(
            DecoderLayer(
                norm_layer, embed_dim, num_heads, num_kv_heads, mlp_dim, qk_norm, i, depth, residual, norm_placement
            )
            for i in range(depth)
        )
        self.norm = norm_layer(embed_dim, site="final", bias=False)
        self.lm_head = nn.Linear(embed_dim, vocab_size, bias=False)
        self.register_buffer("cos", torch.empty(context, self.head_dim), persistent=False)
        self.register_buffer("sin", torch.empty(context, self.head_dim), persistent=False)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, which are compiled and sharded one by one."""
        return self.layers

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draws all weights and computes all buffers in place; can be repeated, also after `to_empty`.

        |                          | fan_in                          | normal     |
        |--------------------------|---------------------------------|------------|
        | embed_tokens             | std 1; D^-0.5 if scaled or tied | std 0.02   |
        | q, k, v, gate, up        | std D^-0.5                      | std 0.02   |
        | o_proj, down_proj        | std (fan_in * 2 * depth)^-0.5   | std 0.02   |
        | lm_head, unless tied     | std head_gain * D^-0.5          | std 0.02   |
        | embed_tokens.scale       | D^0.5                           | D^0.5      |
        | norms                    | their own                       | their own  |
        | last norm, if head tied  | its own, times head_gain        | its own    |

        "normal" is made for widths of 1024 and more, where 0.02 is about D^-0.5.
        """
        dim, scaled = self.embed_tokens.embedding_dim, isinstance(self.embed_tokens, ScaledEmbedding)
        if self.tied:  # here, since `to_empty` separates the two
            self.lm_head.weight = self.embed_tokens.weight
        reset_norms_(module for module in self.modules() if not isinstance(module, nn.Linear | nn.Embedding))
        if self.init == "fan_in":
            projections = [layer for name, layer in self.named_modules() if name.endswith(("o_proj", "down_proj"))]
            depth, scheme = len(self.layers), self.residual
            fan_in_(self, projections, depth, head=self.lm_head, head_gain=self.head_gain, residual=scheme)
            # after the head, which may share the weight
            normal_(self.embed_tokens.weight, dim**-0.5 if self.tied or scaled else 1.0)
            if self.tied and isinstance(weight := getattr(self.norm, "weight", None), Tensor):
                weight.mul_(self.head_gain)
        else:
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    normal_(module.weight, 0.02)
        if isinstance(self.embed_tokens, ScaledEmbedding):
            self.embed_tokens.scale.fill_(dim**0.5)
        self.cos, self.sin = rope_cos_sin(self.context, self.head_dim, self.rope_base, self.cos.device)

    def forward(self, tokens: Tensor, targets: Tensor | None = None, cache: "KVCache | None" = None) -> Tensor:
        """Returns the logits (B, T, V) of the next tokens, or with `targets` their mean cross entropy in nats.

        Args:
            tokens: (B, T) ids.
            targets: (B, T) ids; -100 is left out. Training averages the means of devices and accumulated batches, so
                each should leave out as many.
            cache: of the tokens before these; extended by these.

        Raises:
            ValueError: more tokens than the context, cached ones included.
        """
        start = 0 if cache is None else cache.length
        end = start + tokens.shape[1]
        if end > self.context:
            raise ValueError(f"{end} tokens are more than the context, {self.context}")
        rope = self.cos[start:end], self.sin[start:end]  # (T, E) each
        x = self.embed_tokens(tokens)  # (B, T, D)
        for layer in self.layers:
            x = checkpointed(layer, x, rope) if self.checkpointing and self.training else layer(x, rope, cache)
        if cache is not None:
            cache.length = end
        x = self.norm(x)
        return self.lm_head(x) if targets is None else self._loss(x.flatten(0, 1), targets.flatten())

    def _loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross entropy, with the logits of one chunk in memory at a time, in backward too."""
        parts = list(zip(*(one.split(self.loss_chunk or len(x)) for one in (x, targets)), strict=True))
        chunk_loss = self._chunk_loss if len(parts) == 1 else partial(checkpointed, self._chunk_loss)
        return torch.stack([chunk_loss(*part) for part in parts]).sum() / (targets != IGNORE_INDEX).sum()

    def _chunk_loss(self, x: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.lm_head(x).float(), targets, ignore_index=IGNORE_INDEX, reduction="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(keep_fp32([self.cos, self.sin], fn), recurse)  # 16 bits would blur the positions


class ScaledEmbedding(nn.Embedding):
    """An embedding times a learned scalar, as the DyT paper has it (arXiv 2503.10622)."""

    def __init__(self, vocab_size: int, dim: int) -> None:
        super().__init__(vocab_size, dim)
        self.scale = nn.Parameter(torch.empty(1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = super().forward(tokens)
        return (x * self.scale).to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(keep_fp32([self.scale], fn), recurse)  # in 16 bits a scale of 64 never moves


class DecoderLayer(nn.Module):
    """x + self_attn(norm(x)), then x + mlp(norm(x)); `residual.Residual` has other connections.

    Args:
        index: number of the layer among `depth`, from 0.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        dim: int,
        heads: int,
        kv_heads: int,
        mlp_dim: int,
        qk_norm: str,
        index: int,
        depth: int,
        residual: str,
        norm_placement: str,
    ) -> None:
        super().__init__()
        self.input_layernorm = norm_layer(dim, site="attn", bias=False)
        self.self_attn = Attention(norm_layer, dim, heads, kv_heads, qk_norm, index)
        self.post_attention_layernorm = norm_layer(dim, site="ffn", bias=False)
        self.mlp = SwiGLU(dim, mlp_dim)
        connect = partial(Residual, dim, index, depth, partial(norm_layer, dim, bias=False), residual, norm_placement)
        self.attn_residual = connect()
        self.mlp_residual = connect(first=self.attn_residual)

    def forward(self, x: Tensor, rope: Rope, cache: "KVCache | None" = None) -> Tensor:
        x = self.attn_residual(x, self.input_layernorm, lambda y: self.self_attn(y, rope, cache))  # (B, T, D)
        return self.mlp_residual(x, self.post_attention_layernorm, self.mlp)  # (B, T, D)


class Attention(nn.Module):
    """Causal attention in which H / G heads of queries share one of keys and values (arXiv 2305.13245)."""

    def __init__(self, norm_layer: NormLayer, dim: int, heads: int, kv_heads: int, qk_norm: str, index: int) -> None:
        super().__init__()
        self.index, self.head_dim = index, dim // heads
        self.q_proj = nn.Linear(dim, heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self.head_dim, dim, bias=False)
        qk_layer = qk_norm_layer(qk_norm, norm_layer)
        self.q_norm = None if qk_layer is None else qk_layer(self.head_dim, bias=False)
        self.k_norm = None if qk_layer is None else qk_layer(self.head_dim, bias=False)

    def forward(self, x: Tensor, rope: Rope, cache: "KVCache | None" = None) -> Tensor:
        q, k, v = (proj(x).unflatten(-1, (-1, self.head_dim)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (one.transpose(1, 2) for one in (q, k, v))  # (B, H|G, T, E)
        q, k = apply_rotary_emb(q, rope), apply_rotary_emb(k, rope)
        if cache is not None:
            k, v = cache.extend(self.index, k, v)  # (B, G, S, E)
        length, seen = q.shape[2], k.shape[2]
        mask = None
        if 1 < length < seen:  # several tokens after cached ones: each attends to all before it
            mask = torch.ones(length, seen, dtype=torch.bool, device=x.device).tril(seen - length)  # (T, S)
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=length == seen, enable_gqa=True)  # (B, H, T, E)
        return self.o_proj(y.transpose(1, 2).flatten(2))  # (B, T, D)


class SwiGLU(nn.Module):
    """down_proj(silu(gate_proj(x)) * up_proj(x)) (arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # (B, T, D)


class KVCache:
    """Keys and values of every layer.

    Attributes:
        length: number of cached tokens; the model updates it after its last layer.
    """

    def __init__(self) -> None:
        self.length = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Appends keys and values (B, G, T, E) of the next tokens and returns those of all tokens, (B, G, S, E)."""
        if layer in self._layers:
            old_keys, old_values = self._layers[layer]
            keys, values = torch.cat((old_keys, keys), dim=2), torch.cat((old_values, values), dim=2)
        self._layers[layer] = keys, values
        return keys, values


def build(norm_layer: NormLayer, device: torch.device | str | None = None, **model: Any) -> Llama:
    """Returns the model of a config's section `model`, on `device` or the CPU."""
    return init_on_device(device, lambda: Llama(norm_layer, **model))
