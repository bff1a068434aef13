"""A diffusion transformer (Peebles and Xie 2022, arXiv 2212.09748).

- norms come from `norm_layer`; they have no weight and bias, which adaLN makes out of time and class
- patch embedding, attention and feed-forward network are timm's
- parameter names are those of the reference implementation, so that its weights load as they are
- options: learned positions, rotary position embedding, norms on queries and keys, SwiGLU, activation checkpointing
- initialisation by fan-in, or the paper's, with or without its zeros

B batch, C channels, H x W pixels or latents, P patch size, T = (H / P)(W / P) tokens, D width, E width of a head,
O outputs per channel.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers import AttentionRope, Mlp, PatchEmbed, SwiGLU, build_sincos2d_pos_embed
from torch import Tensor, nn

from ...norms import qk_norm_layer
from ..init import fan_in_, fill_, init_on_device, normal_, reset_norms_, xavier_uniform_
from ..layers import checkpointed, rope_cos_sin_2d
from ..residual import Residual

NormLayer = Callable[..., nn.Module]
FREQUENCIES = 256  # size of the embedding of a timestep
TIME_SCALE = 1000.0  # times from 0 to 1 become timesteps from 0 to 1000


class DiT(nn.Module):
    """A transformer on patches, conditioned on time and class by adaptive layer norm.

    Args:
        norm_layer: called as `norm_layer(dim, site=..., affine=False)`.
        img_size, in_chans: H = W, and C.
        num_classes: labels are below it; it is itself the label of no class.
        outputs: O.
        mlp_ratio: hidden width of the feed-forward network over D.
        mlp: "gelu", or "swiglu" with two thirds of the hidden width, for as many parameters.
        positions: "sines" of row and column, as in the paper, or "learned".
        qk_norm: the norm over E on queries and keys; see `norms.qk_norm_layer`.
        rope: rotary position embedding of row and column too.
        init: "fan_in" or "dit"; see `init_weights`.
        zero_gates, zero_head: start these at 0 under "dit".
        residual, norm_placement: of the connections around attention and MLP; see `residual.Residual`.
        checkpointing: blocks keep only their inputs for backward.
    """

    pos_embed: Tensor
    rope: Tensor | None

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
        qk_norm: str = "none",
        rope: bool = False,
        init: str = "fan_in",
        zero_gates: bool = True,
        zero_head: bool = True,
        residual: str = "plain",
        norm_placement: str = "pre",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.side, self.patch_size, self.head_dim = img_size // patch_size, patch_size, embed_dim // num_heads
        self.num_classes, self.learned = num_classes, positions == "learned"
        self.init, self.zero_gates, self.zero_head, self.checkpointing = init, zero_gates, zero_head, checkpointing
        self.residual = residual
        self.x_embedder = PatchEmbed(img_size, patch_size, in_chans, embed_dim)
        self.t_embedder = TimestepEmbedder(embed_dim)
        self.y_embedder = LabelEmbedder(num_classes, embed_dim)
        pos_embed = torch.empty(1, self.side**2, embed_dim)
        if self.learned:
            self.pos_embed = nn.Parameter(pos_embed)
        else:
            self.register_buffer("pos_embed", pos_embed)
        angles = torch.empty(self.side**2, 2 * self.head_dim) if rope else None  # sine, then cosine, as timm has them
        self.register_buffer("rope", angles, persistent=False)
        hidden = round(embed_dim * mlp_ratio)
        self.blocks = nn.ModuleList(
            Block(norm_layer, embed_dim, num_heads, hidden, mlp, qk_norm, i, depth, residual, norm_placement)
            for i in range(depth)
        )
        self.final_layer = FinalLayer(norm_layer, embed_dim, patch_size**2 * outputs * in_chans)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draws all weights and computes all buffers, in place; also after `to_empty`, and again.

        |                               | fan_in                          | dit, as in the paper                |
        |-------------------------------|---------------------------------|-------------------------------------|
        | x_embedder, attn.qkv, mlp.fc1 | std fan_in^-0.5                 | Xavier                              |
        | attn.proj, mlp.fc2            | std (fan_in * 2 * depth)^-0.5   | Xavier                              |
        | t_embedder                    | std fan_in^-0.5                 | std 0.02                            |
        | y_embedder, learned pos_embed | std 1                           | std 0.02                            |
        | adaLN_modulation of blocks    | std 0.2 * D^-0.5; gates 1       | 0 if zero_gates, else Xavier        |
        | adaLN_modulation of the last  | std 0.2 * D^-0.5                | 0 if zero_head, else Xavier         |
        | final_layer.linear            | std D^-0.5                      | 0 if zero_head, else Xavier         |
        | biases                        | 0                               | 0                                   |
        | norms                         | their own                       | their own                           |

        Zeros leave a block's gates closed, so that it starts as the identity. Under DyT that costs quality, and its
        paper starts them open (arXiv 2503.10622). docs/dit.md compares the two at small widths.
        """
        blocks, last = [block for block in self.blocks if isinstance(block, Block)], self.final_layer
        norms = [norm for block in blocks for norm in (block.norm1, block.attn.q_norm, block.attn.k_norm, block.norm2)]
        residuals = [part for part in self.modules() if isinstance(part, Residual)]
        reset_norms_([*norms, last.norm_final, *residuals, *(one.out_norm for one in residuals if one.out_norm)])
        embedding = self.y_embedder.embedding_table.weight
        if self.init == "fan_in":
            projections = [layer for block in blocks for layer in (block.attn.proj, block.mlp.fc2)]
            fan_in_(self, projections, depth=len(blocks), residual=self.residual)
            normal_(embedding, 1.0)
            for modulation in (*(block.adaLN_modulation for block in blocks), last.adaLN_modulation):
                normal_(modulation[1].weight, 0.2 * embedding.shape[1] ** -0.5)
            for block in blocks:
                fill_(block.adaLN_modulation[1].bias, _open_gates)
        else:
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    xavier_uniform_(module.weight)
                    if module.bias is not None:
                        module.bias.zero_()
            for weight in (embedding, *(weight for weight in self.t_embedder.parameters() if weight.ndim > 1)):
                normal_(weight, 0.02)
            closed: list[nn.Linear] = [block.adaLN_modulation[1] for block in blocks] if self.zero_gates else []
            closed += [last.adaLN_modulation[1], last.linear] if self.zero_head else []
            for linear in closed:
                linear.weight.zero_()
        device, grid = self.pos_embed.device, [self.side, self.side]
        if self.learned:
            normal_(self.pos_embed, 1.0 if self.init == "fan_in" else 0.02)
        else:
            self.pos_embed = build_sincos2d_pos_embed(grid, embedding.shape[1], device=device).unsqueeze(0)
        if self.rope is not None:
            cos, sin = rope_cos_sin_2d(self.side, self.side, self.head_dim, 100.0, device)
            self.rope = torch.cat((sin, cos), dim=-1)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Returns predictions (B, O C, H, W).

        Args:
            x: (B, C, H, W), noisy.
            t: (B,) times in 0..1.
            labels: (B,) classes; num_classes for none.
        """
        tokens = self.x_embedder(x.to(self.x_embedder.proj.weight.dtype)) + self.pos_embed  # (B, T, D)
        condition = self.t_embedder(t) + self.y_embedder(labels)  # (B, D)
        for block in self.blocks:
            if self.checkpointing and self.training:
                tokens = checkpointed(block, tokens, condition, self.rope)
            else:
                tokens = block(tokens, condition, self.rope)
        patches = self.final_layer(tokens, condition)  # (B, T, P P O C)
        patches = patches.unflatten(1, (self.side, self.side)).unflatten(-1, (self.patch_size, self.patch_size, -1))
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)  # (B, O C, H, W)


class TimestepEmbedder(nn.Module):
    """A small network on the sinusoidal embedding of times (B,): (B, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(timestep_embedding(TIME_SCALE * t, FREQUENCIES).to(next(self.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """A vector for each class, and the last one for no class: (B,) -> (B, D)."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, dim)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)


class Block(nn.Module):
    """x + gate * attn(norm(x) * (1 + scale) + shift), then the same with the feed-forward network (adaLN).

    `residual.Residual` has other connections than x + branch(norm(x)). `index` is the number of the block, from 0.
    """

    adaLN_modulation: Any  # nn.Sequential; what is in it has a weight and a bias

    def __init__(
        self,
        norm_layer: NormLayer,
        dim: int,
        heads: int,
        hidden: int,
        mlp: str,
        qk_norm: str,
        index: int,
        depth: int,
        residual: str,
        norm_placement: str,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim, site="attn", affine=False)
        qk_layer: Any = qk_norm_layer(qk_norm, norm_layer)  # timm's annotations ask for classes
        self.attn = AttentionRope(
            dim, heads, num_prefix_tokens=0, qk_norm=qk_layer is not None, norm_layer=qk_layer, rotate_half=True
        )
        self.norm2 = norm_layer(dim, site="ffn", affine=False)
        self.mlp: Mlp | SwiGLU
        if mlp == "gelu":
            gelu: Any = partial(nn.GELU, approximate="tanh")
            self.mlp = Mlp(dim, hidden, act_layer=gelu)
        else:
            self.mlp = SwiGLU(dim, round(hidden * 2 / 3), bias=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        connect = partial(Residual, dim, index, depth, partial(norm_layer, dim, affine=False), residual, norm_placement)
        self.attn_residual = connect()
        self.mlp_residual = connect(first=self.attn_residual)

    def forward(self, x: Tensor, condition: Tensor, rope: Tensor | None = None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).unsqueeze(1).chunk(6, dim=-1)
        x = self.attn_residual(x, self.norm1, lambda y: gate1 * self.attn(modulate(y, shift1, scale1), rope))
        return self.mlp_residual(x, self.norm2, lambda y: gate2 * self.mlp(modulate(y, shift2, scale2)))  # (B, T, D)


class FinalLayer(nn.Module):
    """The last norm, scaled and shifted by time and class, and a linear layer to patches."""

    adaLN_modulation: Any

    def __init__(self, norm_layer: NormLayer, dim: int, out_features: int) -> None:
        super().__init__()
        self.norm_final = norm_layer(dim, site="final", affine=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))
        self.linear = nn.Linear(dim, out_features)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=-1)  # (B, 1, D)
        return self.linear(modulate(self.norm_final(x), shift, scale))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Returns cosines, then sines, of t (B,) at dim / 2 wavelengths from 2 pi to nearly 10,000 times that, fp32."""
    steps = torch.arange(dim // 2, dtype=torch.float32, device=t.device)
    angles = t.float().unsqueeze(-1) * torch.exp(steps * (-math.log(10000.0) / (dim // 2)))
    return torch.cat((angles.cos(), angles.sin()), dim=-1)  # (B, dim)


def build(norm_layer: NormLayer, device: torch.device | str | None = None, **model: Any) -> DiT:
    """Returns the model of a config's section `model`."""
    return init_on_device(device, lambda: DiT(norm_layer, **model))


def _open_gates(bias: Tensor) -> None:
    """Writes the bias of a block's adaLN_modulation: shift and scale 0, gate 1, twice."""
    for part, value in zip(bias.chunk(6), (0.0, 0.0, 1.0) * 2, strict=True):
        part.fill_(value)
