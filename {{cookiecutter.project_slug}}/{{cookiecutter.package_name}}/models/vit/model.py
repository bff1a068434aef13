"""Vision transformers of timm, with the norm given at construction.

B batch, C channels, H x W pixels, K classes: (B, C, H, W) -> (B, K).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ...norms import make_norm
from ..classification import timm_models
from ..init import fan_in_
from ..residual import Residual

OWN_KEYS = (
    "name",
    "img_size",
    "in_chans",
    "num_classes",
    "init",
    "qk_norm",
    "head_gain",
    "residual",
    "norm_placement",
    "drop_path",
    "checkpointing",
    "device",
    "kwargs",
)
HEADS = ("head",)


def build(
    norm_layer: timm_models.NormLayer,
    name: str,
    img_size: int,
    in_chans: int,
    num_classes: int,
    init: str = "timm",
    head_gain: float = 1.0,
    qk_norm: str = "none",
    residual: str = "plain",
    norm_placement: str = "pre",
    drop_path: float = 0.0,
    checkpointing: bool = False,
    device: torch.device | str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **arch: Any,
) -> nn.Module:
    """Returns a timm model whose norms are all `norm_layer`.

    Args:
        norm_layer: called as `norm_layer(dim, device=..., dtype=...)`; no positional arguments in a partial.
        name: timm's name of the architecture; `arch` (patch_size, embed_dim, depth, num_heads, mlp_ratio, global_pool)
            replaces its values.
        init: "timm", made for widths of 768 and more, or "fan_in" (`init.py`), for small vision transformers.
        head_gain: scale of the head's weights under "fan_in".
        qk_norm: the norm on queries and keys; see `norms.qk_norm_layer`.
        residual, norm_placement: of the connections around attention and MLP; see `residual.Residual`.
        drop_path: stochastic depth rate of the last block; it rises linearly from 0 at the first.
        checkpointing: blocks keep only their inputs for backward.
        kwargs: more arguments of timm's constructor.

    Raises:
        ValueError: no such model, sizes that do not fit, or a model that does not take all its norms from outside.
    """
    patch_size = {**arch, **(kwargs or {})}.get("patch_size")
    if isinstance(patch_size, int) and img_size % patch_size:
        raise ValueError(f"patch_size {patch_size}: expected a divisor of img_size {img_size}")
    images = {"in_chans": in_chans, "num_classes": num_classes}
    settings = {**arch, **images, "drop_path_rate": drop_path}
    if qk_norm != "none":
        settings["qk_norm"] = True
    if (residual, norm_placement) != ("plain", "pre"):
        if timm.is_model(name) and timm.model_entrypoint(name).__module__ != VisionTransformer.__module__:
            raise ValueError(f"residual and norm_placement are for vision transformers, not for {name}")
        settings["block_fn"] = partial(ResidualBlock, arch["depth"], residual, norm_placement)
    model = timm_models.create(norm_layer, name, img_size, OWN_KEYS, kwargs, device, **settings)
    if qk_norm not in ("none", "same"):
        blocks: Any = model.blocks
        with torch.device(device or "cpu"):
            for block in blocks:
                block.attn.q_norm, block.attn.k_norm = (make_norm(qk_norm, block.attn.head_dim) for _ in range(2))
    if checkpointing:
        if not isinstance(model, VisionTransformer):
            raise ValueError(f"checkpointing is for vision transformers, not for {name}")
        model.set_grad_checkpointing()
    if init == "fan_in":
        if not isinstance(model, VisionTransformer):
            raise ValueError(f"init fan_in is for vision transformers; {name} needs init timm")
        init_weights(model, head_gain, residual)
    return model


class ResidualBlock(Block):
    """timm's block with other connections around attention and MLP."""

    def __init__(
        self,
        blocks: int,
        residual: str,
        placement: str,
        dim: int,
        *,
        norm_layer: timm_models.NormLayer,
        depth: int,
        **block: Any,
    ) -> None:
        own_norm: Any = norm_layer  # timm's annotations ask for classes
        super().__init__(dim, norm_layer=own_norm, depth=depth, **block)
        connect = partial(Residual, dim, depth, blocks, partial(norm_layer, dim), residual, placement)
        self.attn_residual = connect()
        self.mlp_residual = connect(first=self.attn_residual)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        x = self.attn_residual(x, self.norm1, lambda y: self.drop_path1(self.ls1(self.attn(y, *args, **kwargs))))
        return self.mlp_residual(x, self.norm2, lambda y: self.drop_path2(self.ls2(self.mlp(y))))


def init_weights(model: VisionTransformer, head_gain: float = 1.0, residual: str = "plain") -> None:
    """Draws width-consistent weights in place (`init.py`), and a position embedding of std 0.5.

    Patches have std 1; timm's 0.02 for positions costs a small model up to a point of accuracy.
    """
    projections = [layer for name, layer in model.named_modules() if name.endswith(("attn.proj", "mlp.fc2"))]
    if model.pos_embed is not None:
        nn.init.normal_(model.pos_embed, std=0.5)
    fan_in_(model, projections, depth=len(model.blocks), head=model.head, head_gain=head_gain, residual=residual)


def load_pretrained(weights: str, model: Mapping[str, Any]) -> nn.Module:
    """Returns timm's own model with trained weights, for `init=` (`timm_models.py`)."""
    return timm_models.load_pretrained(weights, model, OWN_KEYS, HEADS)
