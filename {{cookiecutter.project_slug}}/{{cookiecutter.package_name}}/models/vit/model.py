"""Vision transformers: timm's, with the norm given at construction.

B batch, C channels, H x W pixels, K classes: (B, C, H, W) -> (B, K).
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ...errors import UsageError
from ..init import fan_in_

NormLayer = Callable[..., nn.Module]

KEYS = ("name", "img_size", "in_chans", "num_classes", "init", "head_gain", "drop_path", "device")
TORCH_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.modules.batchnorm._NormBase)


def build(
    norm_layer: NormLayer,
    name: str,
    img_size: int,
    in_chans: int,
    num_classes: int,
    init: str = "timm",
    head_gain: float = 1.0,
    drop_path: float = 0.0,
    device: torch.device | str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **arch: Any,
) -> nn.Module:
    """A timm model whose norms are all `norm_layer`.

    Args:
        norm_layer: called as `norm_layer(dim, device=..., dtype=...)`.
        name: timm's name of the architecture; `arch` (patch_size, embed_dim, depth, num_heads, mlp_ratio, qk_norm,
            global_pool) replaces its own values.
        init: "timm", made for widths of 768 and up, or "fan_in" (see `init.py`), for small ones.
        head_gain: scale of the classifier's weights under "fan_in".
        drop_path: stochastic depth rate of the last block, rising linearly from 0 at the first.
        kwargs: passed to timm as they are; none of the above.

    Raises:
        UsageError: no such model, sizes that do not fit, or a model that does not leave its norms to `norm_layer`.
    """
    _check_kwargs(kwargs or {}, arch)
    settings = {**arch, **(kwargs or {}), "in_chans": in_chans, "num_classes": num_classes, "drop_path_rate": drop_path}
    _check_sizes(img_size, **{"drop_path": drop_path, **settings})
    if not timm.is_model(name):
        command = "uv run python -c 'import timm; print(*timm.list_models())'"
        raise UsageError(f"model.name={name}: timm has no such model; `{command}` lists them")
    if init not in ("timm", "fan_in"):
        raise UsageError(f"model.init={init}: choose timm or fan_in")
    if not 0 < head_gain < math.inf:
        raise UsageError(f"model.head_gain={head_gain}: expected a number above 0")
    draft = _checked_draft(name, norm_layer, img_size, settings)
    if init == "fan_in" and not isinstance(draft, VisionTransformer):
        raise UsageError(f"model.init=fan_in knows vision transformers, not {name}: use model.init=timm")
    with torch.device(device or "cpu"):
        net = _create(name, norm_layer, img_size, settings)
    if init == "fan_in":
        assert isinstance(net, VisionTransformer)
        init_weights(net, head_gain)
    return net


def init_weights(net: VisionTransformer, head_gain: float = 1.0) -> None:
    """Width-consistent scales for a ViT, in place: by the table of `init.py`, and positions of std 0.5.

    Patches are of std 1; timm's 0.02 beside them cost a small net up to a point of accuracy (docs/vit.md).
    """
    projections = [layer for name, layer in net.named_modules() if name.endswith(("attn.proj", "mlp.fc2"))]
    if net.pos_embed is not None:
        nn.init.normal_(net.pos_embed, std=0.5)
    fan_in_(net, projections, depth=len(net.blocks), head=net.head, head_gain=head_gain)


def _create(name: str, norm_layer: NormLayer, img_size: int, settings: Mapping[str, Any]) -> nn.Module:
    def norm(dim: int, **factory: Any) -> nn.Module:  # timm takes a partial apart and drops its positional arguments
        if unknown := ", ".join(sorted(set(factory) - {"device", "dtype"})):
            raise UsageError(
                f"model.name={name}: it tells its norms {unknown}, which they do not take; choose a transformer"
            )
        return norm_layer(dim, **factory)

    with _told_by_timm(name):
        try:
            return timm.create_model(name, norm_layer=norm, img_size=img_size, **settings)
        except TypeError as error:  # convolutional and hybrid nets take any size and no such argument
            if "img_size" not in str(error):
                raise
            return timm.create_model(name, norm_layer=norm, **settings)


def _checked_draft(name: str, norm_layer: NormLayer, img_size: int, settings: Mapping[str, Any]) -> nn.Module:
    """The net on the meta device, having run there; refused if a norm in it is not what `norm=` says."""
    made = []

    def watched(dim: int, **factory: Any) -> nn.Module:
        def check_layout(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].shape[-1] != dim:
                raise UsageError(
                    f"model.name={name}: it normalises channels-first maps, and norm= works on the last dimension; "
                    "choose a transformer or an MLP"
                )

        made.append(norm_layer(dim, **factory))
        made[-1].register_forward_pre_hook(check_layout)
        return made[-1]

    with torch.device("meta"):
        net = _create(name, watched, img_size, settings)
        own = {part for norm in made for part in norm.modules()}
        foreign = [module for module in net.modules() if _is_other_norm(module) and module not in own]
        if not made or foreign:
            count = len(foreign) or "all"
            raise UsageError(
                f"model.name={name}: timm builds {count} of its norms itself, whatever norm= says; choose another model"
            )
        with _told_by_timm(name):
            net.eval()(torch.empty(1, settings["in_chans"], img_size, img_size))
    return net


def _is_other_norm(module: nn.Module) -> bool:
    """Whether `module` is a norm of PyTorch's or of timm's, which stand in its layers/*norm*.py and layers/grn.py."""
    files = [cls.__module__ for cls in type(module).__mro__]
    return isinstance(module, TORCH_NORMS) or any(re.match(r"timm\.layers\.(\w*norm|grn)", file) for file in files)


@contextmanager
def _told_by_timm(name: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except (TypeError, AttributeError, AssertionError, RuntimeError, ValueError, LookupError, ArithmeticError) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"model.name={name}: timm cannot build it with these settings: {cause}") from error


def _check_kwargs(kwargs: Mapping[str, Any], arch: Mapping[str, Any]) -> None:
    own = {key: f"model.{key}" for key in (*KEYS, *arch)} | {"drop_path_rate": "model.drop_path", "norm_layer": "norm"}
    for key in kwargs:
        if key in own:
            raise UsageError(f"model.kwargs.{key}: it has a key of its own, {own[key]}")


def _check_sizes(
    img_size: int,
    depth: int = 1,
    embed_dim: int | None = None,
    num_heads: int | None = None,
    patch_size: int | None = None,
    mlp_ratio: float = 1.0,
    drop_path: float = 0.0,
    **_: Any,
) -> None:
    sizes = {"depth": depth, "embed_dim": embed_dim, "num_heads": num_heads, "patch_size": patch_size}
    for key, value in sizes.items():
        if isinstance(value, (int, float)) and not value >= 1:  # some nets take a list, one number for each stage
            raise UsageError(f"model.{key}={value}: expected a whole number from 1 on")
    if isinstance(mlp_ratio, (int, float)) and not 0 < mlp_ratio < math.inf:
        raise UsageError(f"model.mlp_ratio={mlp_ratio}: expected a number above 0")
    if not 0 <= drop_path < 1:
        raise UsageError(f"model.drop_path={drop_path}: expected a rate from 0 up to, not including, 1")
    if isinstance(patch_size, int) and img_size % patch_size:
        raise UsageError(f"model.patch_size={patch_size}: it does not divide the image size {img_size} (data.img_size)")
    if isinstance(embed_dim, int) and isinstance(num_heads, int) and embed_dim % num_heads:
        raise UsageError(f"model.num_heads={num_heads}: it does not divide the width {embed_dim} (model.embed_dim)")
