"""A diffusion transformer (Peebles and Xie 2022, arXiv 2212.09748) with the norm given at construction.

B batch, C channels, H x W pixels or latents, P patch, T = (H / P) (W / P) tokens, D width, N heads, E width of a head,
O quantities that are predicted of every channel: (B, C, H, W), (B,), (B,) -> (B, O C, H, W).
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import require
from ..init import drawn_, drawn_on, fan_in_, normal_, reset_, xavier_
from ..layers import Rope, SwiGLU, computed_anew, rope_tables_2d, rotate, sines, sines_2d

NormLayer = Callable[..., nn.Module]
FREQUENCIES = 256  # that a timestep is spelt in, sines and cosines together
STEPS = 1000.0  # what times from 0 to 1 are spread over, before their sines


class DiT(nn.Module):
    """Pre-norm blocks whose norms, without parameters but alpha, are scaled, shifted and gated by time and class.

    Args:
        norm_layer: called as `norm_layer(dim, site=..., affine=False)`.
        img_size, in_chans: H = W, and C.
        num_classes: labels are below it; it is itself the label of no class.
        outputs: O.
        mlp_ratio: hidden width of the feed-forward network over D.
        mlp: "gelu", or "swiglu", whose hidden width is two thirds of it, for as many parameters.
        positions: "sines" of row and column, as in the paper, or "learned".
        qk_norm: a norm over E on queries and keys.
        rope: turns queries and keys by row and column too.
        init: "fan_in" or "dit"; see `init_weights`.
        zero_gates, zero_head: what starts at 0 under "dit".
        checkpointing: blocks keep their inputs alone for backward, and compute the rest anew.
    """

    places: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        norm_layer: NormLayer,
        img_size: int,
        in_chans: int,
        num_classes: int,
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        outputs: int = 1,
        mlp_ratio: float = 4.0,
        mlp: str = "gelu",
        positions: str = "sines",
        qk_norm: bool = False,
        rope: bool = False,
        init: str = "fan_in",
        zero_gates: bool = True,
        zero_head: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.side, self.num_classes = img_size // patch_size, num_classes
        self.head_dim, self.rope = embed_dim // num_heads, rope
        self.init, self.zero_gates, self.zero_head, self.checkpointing = init, zero_gates, zero_head, checkpointing
        self.patches = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, embed_dim), nn.SiLU(), nn.Linear(embed_dim, embed_dim))
        self.classes = nn.Embedding(num_classes + 1, embed_dim)
        self.blocks = nn.ModuleList(
            Block(norm_layer, embed_dim, num_heads, round(embed_dim * mlp_ratio), mlp, qk_norm) for _ in range(depth)
        )
        self.norm = norm_layer(embed_dim, site="final", affine=False)
        self.modulation = nn.Linear(embed_dim, 2 * embed_dim)
        self.head = nn.Linear(embed_dim, patch_size**2 * outputs * in_chans)
        self.positions = positions
        if positions == "learned":
            self.places = nn.Parameter(torch.empty(self.side**2, embed_dim))
        else:
            self.register_buffer("places", torch.empty(self.side**2, embed_dim), persistent=False)
        for name in ("cos", "sin"):
            self.register_buffer(name, torch.empty(self.side**2 if rope else 0, self.head_dim), persistent=False)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draws all weights and computes all buffers, in place; also after `to_empty`, and again.

        |                           | fan_in                          | dit, as in the paper                |
        |---------------------------|---------------------------------|-------------------------------------|
        | patches, q, k, v, MLPs in | std fan_in^-0.5                 | Xavier                              |
        | attention and MLP out     | std (fan_in * 2 * depth)^-0.5   | Xavier                              |
        | time                      | std fan_in^-0.5                 | std 0.02                            |
        | classes, learned places   | std 1                           | std 0.02                            |
        | modulation of blocks      | std 0.2 * D^-0.5; gates 1       | 0 if zero_gates, else Xavier        |
        | modulation of the head    | std 0.2 * D^-0.5                | 0 if zero_head, else Xavier         |
        | head                      | std D^-0.5                      | 0 if zero_head, else Xavier         |
        | biases                    | 0                               | 0                                   |
        | norms                     | their own                       | their own                           |

        Zeros leave a block's gates closed, so that it starts as the identity. Under DyT that costs quality, and its
        paper starts them open (arXiv 2503.10622). What either does at small widths says docs/dit.md.
        """
        blocks, dim = [cast(Block, block) for block in self.blocks], self.classes.embedding_dim
        reset_([*(norm for block in blocks for norm in block.norms), self.norm])
        modulations = [*(block.modulation for block in blocks), self.modulation]
        if self.init == "fan_in":
            fan_in_(self, [layer for block in blocks for layer in block.writers], depth=len(blocks))
            normal_(self.classes.weight, 1.0)
            for layer in modulations:
                normal_(layer.weight, 0.2 * dim**-0.5)
            for block in blocks:
                drawn_(block.modulation.bias, _open_gates)
        else:
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    xavier_(module.weight)
                    if module.bias is not None:
                        module.bias.zero_()
            for weight in (self.classes.weight, *(layer.weight for layer in self.time if isinstance(layer, nn.Linear))):
                normal_(weight, 0.02)
            closed = [*(modulations[:-1] if self.zero_gates else []), *([self.modulation] if self.zero_head else [])]
            for layer in [*closed, *([self.head] if self.zero_head else [])]:
                layer.weight.zero_()
        if self.positions == "learned":
            normal_(self.places, 1.0 if self.init == "fan_in" else 0.02)
        else:
            self.places = sines_2d(self.side, dim, self.places.device)
        if self.rope:
            self.cos, self.sin = rope_tables_2d(self.side, self.side, self.head_dim, 100.0, self.cos.device)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """O C channels of the size of `x`.

        Args:
            x: (B, C, H, W), noisy.
            t: (B,) times in 0..1.
            labels: (B,) classes; num_classes for none.
        """
        tokens = self.patches(x.to(self.patches.weight.dtype)).flatten(2).mT + self.places  # (B, T, D)
        times = sines(STEPS * t, FREQUENCIES).to(self.classes.weight.dtype)  # (B, 256)
        condition = F.silu(self.time(times) + self.classes(labels))  # (B, D)
        rope = (self.cos, self.sin) if self.rope else None
        for block in self.blocks:
            again = self.checkpointing and self.training
            tokens = computed_anew(block, tokens, condition, rope) if again else block(tokens, condition, rope)
        shift, scale = self.modulation(condition).unsqueeze(1).chunk(2, dim=-1)  # (B, 1, D)
        pixels = self.head(modulated(self.norm(tokens), shift, scale))  # (B, T, P P O C)
        pixels = pixels.unflatten(1, (self.side, self.side)).unflatten(-1, (*self.patches.kernel_size, -1))
        return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)  # (B, O C, H, W)


class Block(nn.Module):
    """x + gate * attn(norm(x) * (1 + scale) + shift), then the same with the feed-forward network (adaLN)."""

    def __init__(self, norm_layer: NormLayer, dim: int, heads: int, hidden: int, mlp: str, qk_norm: bool) -> None:
        super().__init__()
        self.attn_norm = norm_layer(dim, site="attn", affine=False)
        self.attn = Attention(norm_layer, dim, heads, qk_norm)
        self.ffn_norm = norm_layer(dim, site="ffn", affine=False)
        self.ffn: MLP | SwiGLU = MLP(dim, hidden) if mlp == "gelu" else SwiGLU(dim, round(hidden * 2 / 3))
        self.modulation = nn.Linear(dim, 6 * dim)

    @property
    def norms(self) -> list[nn.Module]:
        ours = [self.attn_norm, self.attn.q_norm, self.attn.k_norm, self.ffn_norm]
        return [norm for norm in ours if norm is not None]

    @property
    def writers(self) -> list[nn.Linear]:
        """The layers whose output is added to the residual stream."""
        return [self.attn.out, self.ffn.down]

    def forward(self, x: Tensor, condition: Tensor, rope: Rope | None = None) -> Tensor:
        mixed = self.modulation(condition).unsqueeze(1).chunk(6, dim=-1)  # (B, 1, D)
        shift, scale, gate = mixed[:3]
        x = x + gate * self.attn(modulated(self.attn_norm(x), shift, scale), rope)  # (B, T, D)
        shift, scale, gate = mixed[3:]
        return x + gate * self.ffn(modulated(self.ffn_norm(x), shift, scale))  # (B, T, D)


class Attention(nn.Module):
    """Of every token to all."""

    def __init__(self, norm_layer: NormLayer, dim: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.q_norm = norm_layer(dim // heads) if qk_norm else None
        self.k_norm = norm_layer(dim // heads) if qk_norm else None

    def forward(self, x: Tensor, rope: Rope | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, N, T, E)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # (B, T, D)


class MLP(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))  # (B, T, D)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def build(norm_layer: NormLayer, device: torch.device | str | None = None, **model: Any) -> DiT:
    """The net of a config's section `model`.

    Raises:
        UsageError: sizes that do not fit together.
    """
    _check(**model)
    return drawn_on(device, lambda: DiT(norm_layer, **model))


def _check(**model: Any) -> None:
    for key in ("img_size", "in_chans", "num_classes", "patch_size", "embed_dim", "depth", "num_heads"):
        require(model[key] >= 1, f"model.{key}={model[key]}: expected a whole number from 1 on")
    size, patch, dim, heads = (model[key] for key in ("img_size", "patch_size", "embed_dim", "num_heads"))
    divides = f"model.patch_size={patch}: it does not divide the image size {size} (data.img_size)"
    require(size % patch == 0, divides)
    require(dim % heads == 0, f"model.num_heads={heads}: it does not divide the width {dim} (model.embed_dim)")
    require(dim % 4 == 0, f"model.embed_dim={dim}: expected a multiple of 4, for sines and cosines of rows and columns")
    turns = not model["rope"] or dim // heads % 4 == 0
    require(turns, f"model.rope=true: heads of width {dim // heads} (embed_dim / num_heads); take a multiple of 4")
    require(model["mlp"] in ("gelu", "swiglu"), f"model.mlp={model['mlp']}: choose gelu or swiglu")
    positions = model["positions"]
    require(positions in ("sines", "learned"), f"model.positions={positions}: choose sines or learned")
    require(model["mlp_ratio"] > 0, f"model.mlp_ratio={model['mlp_ratio']}: expected a number above 0")
    require(model["init"] in ("fan_in", "dit"), f"model.init={model['init']}: choose fan_in or dit")


def _open_gates(bias: Tensor) -> None:
    """The bias of a block's modulation: shift and scale 0, gate 1, twice."""
    for part, value in zip(bias.chunk(6), (0.0, 0.0, 1.0) * 2, strict=True):
        part.fill_(value)
