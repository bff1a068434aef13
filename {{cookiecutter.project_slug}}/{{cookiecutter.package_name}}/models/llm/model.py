"""A LLaMA (Touvron et al. 2023, arXiv 2302.13971) with the norm given at construction.

B batch, T tokens, S those and the ones in the cache before them, D width, H heads, G heads of keys and values, E width
of a head, F hidden width of the feed-forward network, V vocabulary: (B, T) -> (B, T, V).
"""

from collections.abc import Callable
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import require
from ...norms.precision import sparing
from ..init import fan_in_, init_on_device, normal_, reset_norms_
from ..layers import Rope, SwiGLU, apply_rotary_emb, checkpointed, rope_cos_sin
from .cache import KVCache

NormLayer = Callable[..., nn.Module]
IGNORED = -100  # a target that counts for nothing


class Llama(nn.Module):
    """Pre-norm decoder: rotary positions, grouped-query attention, SwiGLU, no biases. `init_weights` makes it ready.

    Args:
        norm_layer: called as `norm_layer(dim, site=..., bias=False)`.
        vocab_size, context: token ids are below the one, texts no longer than the other.
        mlp_dim: F.
        tied: the head's weights are the embedding's.
        qk_norm: a norm over E on queries and keys, before they are rotated.
        rope_base: of the wavelengths of the rotary positions, from 2 pi to 2 pi times this.
        embed_scale: a learned scalar on the embedding, from sqrt(D) on.
        init: "fan_in" or "normal"; see `init_weights`.
        head_gain: scale of the head's first weights under "fan_in"; of a tied head's, the last norm's.
        loss_chunk: tokens whose logits the loss holds at once; 0 for all.
        checkpointing: blocks keep their inputs alone for backward, and compute the rest anew.
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
        qk_norm: bool = False,
        rope_base: float = 10000.0,
        embed_scale: bool = False,
        init: str = "fan_in",
        head_gain: float = 1.0,
        loss_chunk: int = 0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.context, self.rope_base, self.head_dim = context, rope_base, embed_dim // num_heads
        self.init, self.head_gain = init, head_gain
        self.loss_chunk, self.checkpointing = loss_chunk, checkpointing
        self.embed = nn.Embedding(vocab_size, embed_dim)
        self.embed_scale = nn.Parameter(torch.empty(1)) if embed_scale else None
        self.blocks = nn.ModuleList(
            Block(norm_layer, embed_dim, num_heads, num_kv_heads, mlp_dim, qk_norm, layer) for layer in range(depth)
        )
        self.norm = norm_layer(embed_dim, site="final", bias=False)
        self.head = nn.Linear(embed_dim, vocab_size, bias=False)
        self.tied = tied
        self.register_buffer("cos", torch.empty(context, self.head_dim), persistent=False)
        self.register_buffer("sin", torch.empty(context, self.head_dim), persistent=False)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draws all weights and computes all buffers, in place; also after `to_empty`, and again.

        |                      | fan_in                            | normal                |
        |----------------------|-----------------------------------|-----------------------|
        | embedding            | std 1; D^-0.5 if scaled or tied   | std 0.02              |
        | q, k, v, gate, up    | std D^-0.5                        | std 0.02              |
        | out, down            | std (fan_in * 2 * depth)^-0.5     | std 0.02              |
        | head, unless tied    | std head_gain * D^-0.5            | std 0.02              |
        | embed_scale          | D^0.5                             | D^0.5                 |
        | norms                | their own                         | their own             |
        | final norm if tied   | its own, times head_gain          | its own               |

        "normal" is made for widths of 1024 and up, where 0.02 is about D^-0.5; what it does below says docs/llm.md.
        """
        dim = self.embed.embedding_dim
        if self.tied:  # here, since `to_empty` makes two weights of the one
            self.head.weight = self.embed.weight
        reset_norms_([*(norm for block in self._blocks for norm in block.norms), self.norm])
        if self.init == "fan_in":
            projections = [layer for block in self._blocks for layer in (block.attn.out, block.ffn.down)]
            fan_in_(self, projections, depth=len(self.blocks), head=self.head, head_gain=self.head_gain)
            # after the head, whose weight it may be
            normal_(self.embed.weight, dim**-0.5 if self.tied or self.embed_scale is not None else 1.0)
            if self.tied and isinstance(weight := getattr(self.norm, "weight", None), Tensor):
                weight.mul_(self.head_gain)
        else:
            for layer in self.modules():
                if isinstance(layer, nn.Linear | nn.Embedding):
                    normal_(layer.weight, 0.02)
        if self.embed_scale is not None:
            self.embed_scale.fill_(dim**0.5)
        cos, sin = rope_cos_sin(self.context, self.head_dim, self.rope_base, self.cos.device)
        self.cos, self.sin = cos, sin

    def forward(self, tokens: Tensor, targets: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the next tokens; with `targets`, their mean cross entropy in nats instead.

        Args:
            tokens: (B, T) ids.
            targets: (B, T) ids; those that are -100 count for nothing. Training averages the means of its devices and
                accumulated batches, so they should have as many each.
            cache: of the tokens before these, which it then holds too.

        Raises:
            ValueError: more tokens than the context, those in the cache counted.
        """
        start = 0 if cache is None else cache.length
        end = start + tokens.shape[1]
        if end > self.context:
            raise ValueError(f"{end} tokens are more than the context, {self.context}")
        rope = self.cos[start:end], self.sin[start:end]  # (T, E) each
        x = self.embed(tokens)  # (B, T, D)
        if self.embed_scale is not None:
            x = (x * self.embed_scale).to(x.dtype)
        for block in self.blocks:
            x = checkpointed(block, x, rope) if self.checkpointing and self.training else block(x, rope, cache)
        if cache is not None:
            cache.length += tokens.shape[1]
        x = self.norm(x)
        return self.head(x) if targets is None else self._loss(x.flatten(0, 1), targets.flatten())

    def _loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Chunk by chunk, each computed anew in backward: (N, V) is never whole. torch 2.15 has a fused function."""
        size = self.loss_chunk or len(x)
        if len(x) <= size:
            total = self._chunk_loss(x, targets)
        else:
            parts = zip(x.split(size), targets.split(size), strict=True)
            total = torch.stack([checkpointed(self._chunk_loss, *part) for part in parts]).sum()
        return total / (targets != IGNORED).sum()

    def _chunk_loss(self, x: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.head(x).float(), targets, ignore_index=IGNORED, reduction="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        spared = [self.cos, self.sin, *([] if self.embed_scale is None else [self.embed_scale])]
        return super()._apply(sparing(spared, fn), recurse)  # in 16 bits positions blur, and a scale of 64 never moves

    @property
    def _blocks(self) -> list["Block"]:
        return [cast(Block, block) for block in self.blocks]


class Block(nn.Module):
    """x + attn(norm(x)), then x + ffn(norm(x))."""

    def __init__(
        self, norm_layer: NormLayer, dim: int, heads: int, kv_heads: int, mlp_dim: int, qk_norm: bool, layer: int
    ) -> None:
        super().__init__()
        self.attn_norm = norm_layer(dim, site="attn", bias=False)
        self.attn = Attention(norm_layer, dim, heads, kv_heads, qk_norm, layer)
        self.ffn_norm = norm_layer(dim, site="ffn", bias=False)
        self.ffn = SwiGLU(dim, mlp_dim)

    @property
    def norms(self) -> list[nn.Module]:
        ours = [self.attn_norm, self.attn.q_norm, self.attn.k_norm, self.ffn_norm]
        return [norm for norm in ours if norm is not None]

    def forward(self, x: Tensor, rope: Rope, cache: KVCache | None = None) -> Tensor:
        x = x + self.attn(self.attn_norm(x), rope, cache)  # (B, T, D)
        return x + self.ffn(self.ffn_norm(x))  # (B, T, D)


class Attention(nn.Module):
    """Causal attention in which H / G heads of queries share one of keys and values (arXiv 2305.13245)."""

    def __init__(self, norm_layer: NormLayer, dim: int, heads: int, kv_heads: int, qk_norm: bool, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, dim // heads
        self.q = nn.Linear(dim, heads * self.head_dim, bias=False)
        self.k = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.v = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.out = nn.Linear(heads * self.head_dim, dim, bias=False)
        self.q_norm = norm_layer(self.head_dim, bias=False) if qk_norm else None
        self.k_norm = norm_layer(self.head_dim, bias=False) if qk_norm else None

    def forward(self, x: Tensor, rope: Rope, cache: KVCache | None = None) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, self.head_dim)) for layer in (self.q, self.k, self.v))  # (B, T, H|G, E)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (one.transpose(1, 2) for one in (q, k, v))  # (B, H|G, T, E)
        q, k = apply_rotary_emb(q, rope), apply_rotary_emb(k, rope)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, G, S, E)
        length, seen = q.shape[2], k.shape[2]
        mask = None
        if 1 < length < seen:  # several tokens after a cache: each sees all before it
            mask = torch.ones(length, seen, dtype=torch.bool, device=x.device).tril(seen - length)  # (T, S)
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=length == seen, enable_gqa=True)  # (B, H, T, E)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, T, D)


def build(norm_layer: NormLayer, device: torch.device | str | None = None, **model: Any) -> Llama:
    """The net of a config's section `model`.

    Raises:
        UsageError: sizes that do not fit together.
    """
    _check(**model)
    return init_on_device(device, lambda: Llama(norm_layer, **model))


def _check(**model: Any) -> None:
    for key in ("vocab_size", "context", "embed_dim", "depth", "num_heads", "num_kv_heads", "mlp_dim"):
        require(model[key] >= 1, f"model.{key}={model[key]}: expected a whole number from 1 on")
    dim, heads, groups = model["embed_dim"], model["num_heads"], model["num_kv_heads"]
    require(dim % heads == 0, f"model.num_heads={heads}: it does not divide the width {dim} (model.embed_dim)")
    even = dim // heads % 2 == 0
    require(even, f"model.num_heads={heads}: heads of width {dim // heads}; rotation needs an even one")
    require(heads % groups == 0, f"model.num_kv_heads={groups}: it does not divide the {heads} heads (model.num_heads)")
    require(model["init"] in ("fan_in", "normal"), f"model.init={model['init']}: choose fan_in or normal")
    require(model["head_gain"] > 0, f"model.head_gain={model['head_gain']}: expected a number above 0")
    require(model["rope_base"] > 1, f"model.rope_base={model['rope_base']}: expected a number above 1")
    require(model["loss_chunk"] >= 0, f"model.loss_chunk={model['loss_chunk']}: expected 0 (all) or more")
