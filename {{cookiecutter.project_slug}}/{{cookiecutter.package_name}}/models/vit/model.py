"""Vision transformers of timm, with the norm given at construction.

B batch, C channels, H x W pixels, K classes: (B, C, H, W) -> (B, K).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..init import fan_in_

NormLayer = Callable[..., nn.Module]

OWN_KEYS = (
    "name",
    "img_size",
    "in_chans",
    "num_classes",
    "init",
    "head_gain",
    "drop_path",
    "checkpointing",
    "device",
    "kwargs",
)
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
    checkpointing: bool = False,
    device: torch.device | str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **arch: Any,
) -> nn.Module:
    """Returns a timm model whose norms are all `norm_layer`.

    Args:
        norm_layer: called as `norm_layer(dim, device=..., dtype=...)`; no positional arguments in a partial.
        name: timm's name of the architecture; `arch` (patch_size, embed_dim, depth, num_heads, mlp_ratio, qk_norm,
            global_pool) replaces its values.
        init: "timm", made for widths of 768 and more, or "fan_in" (`init.py`), for small vision transformers.
        head_gain: scale of the head's weights under "fan_in".
        drop_path: stochastic depth rate of the last block; it rises linearly from 0 at the first.
        checkpointing: blocks keep only their inputs for backward.
        kwargs: more arguments of timm's constructor.

    Raises:
        ValueError: no such model, sizes that do not fit, or a model that does not take all its norms from outside.
    """
    taken = {"drop_path_rate", "norm_layer", "checkpoint_path", "cache_dir", *OWN_KEYS, *arch}
    if wrong := [key for key in kwargs or {} if key in taken or key.startswith("pretrained")]:
        raise ValueError(f"kwargs has {', '.join(wrong)}: expected no key of the model, and none that loads weights")
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name}; timm.list_models() lists them")
    settings = {**arch, **(kwargs or {}), "in_chans": in_chans, "num_classes": num_classes, "drop_path_rate": drop_path}
    patch_size = settings.get("patch_size")
    if isinstance(patch_size, int) and img_size % patch_size:
        raise ValueError(f"patch_size {patch_size}: expected a divisor of img_size {img_size}")
    with _timm_errors(name):
        _check_norms(norm_layer, name, img_size, settings)
        with torch.device(device or "cpu"):
            model = _create(norm_layer, name, img_size, settings)
    if checkpointing:
        if not isinstance(model, VisionTransformer):
            raise ValueError(f"checkpointing is for vision transformers, not for {name}")
        model.set_grad_checkpointing()
    if init == "fan_in":
        if not isinstance(model, VisionTransformer):
            raise ValueError(f"init fan_in is for vision transformers; {name} needs init timm")
        init_weights(model, head_gain)
    return model


def init_weights(model: VisionTransformer, head_gain: float = 1.0) -> None:
    """Draws width-consistent weights in place (`init.py`), and a position embedding of std 0.5.

    Patches have std 1; timm's 0.02 for positions costs a small model up to a point of accuracy.
    """
    residual = [layer for name, layer in model.named_modules() if name.endswith(("attn.proj", "mlp.fc2"))]
    if model.pos_embed is not None:
        nn.init.normal_(model.pos_embed, std=0.5)
    fan_in_(model, residual, depth=len(model.blocks), head=model.head, head_gain=head_gain)


def load_pretrained(weights: str, model: Mapping[str, Any]) -> nn.Module:
    """Returns timm's own model with trained weights, for `init=`.

    Args:
        weights: timm/<name>, which timm fetches or has cached; or a file (safetensors or torch.save) with weights of
            the architecture that `model` describes. The number of classes is that of the weights.
        model: section `model` of the config.

    Raises:
        ValueError: no such weights, or weights that do not fit.
    """
    images = {"img_size": model["img_size"], "in_chans": model["in_chans"]}
    with _timm_errors(weights):
        if weights.startswith("timm/"):
            return timm.create_model(weights.removeprefix("timm/"), pretrained=True, **images)
        if not Path(weights).expanduser().is_file():
            raise ValueError("there is no such run, checkpoint or file; timm/<name> takes weights of timm")
        state = load_state_dict(str(Path(weights).expanduser()), weights_only=True)
        arch = {key: value for key, value in model.items() if key not in OWN_KEYS} | dict(model["kwargs"] or {})
        classes = len(state["head.weight"]) if "head.weight" in state else model["num_classes"]
        trained = timm.create_model(model["name"], num_classes=classes, **images, **arch)
        trained.load_state_dict(state)
        return trained


def _create(norm_layer: NormLayer, name: str, img_size: int, settings: Mapping[str, Any]) -> nn.Module:
    create = partial(timm.create_model, name, norm_layer=norm_layer, **settings)
    try:
        return create(img_size=img_size)
    except TypeError as error:  # models for any size of image have no such argument
        if "img_size" not in str(error):
            raise
        return create()


def _check_norms(norm_layer: NormLayer, name: str, img_size: int, settings: Mapping[str, Any]) -> None:
    """Raises ValueError unless `norm_layer` makes all norms, over the last dimension; found out on the meta device."""
    made = []

    def recorded(dim: int, **factory: Any) -> nn.Module:
        def check_layout(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].shape[-1] != dim:
                raise ValueError(f"{name} normalises channels-first maps; choose a transformer or an MLP")

        made.append(norm_layer(dim, **factory))
        made[-1].register_forward_pre_hook(check_layout)
        return made[-1]

    with torch.device("meta"):
        model = _create(recorded, name, img_size, settings)
        own = {part for norm in made for part in norm.modules()}
        other = [module for module in model.modules() if module not in own and _is_other_norm(module)]
        if not made or other:
            raise ValueError(f"{name} builds {len(other) or 'all'} of its norms itself; choose another model")
        model.eval()(torch.empty(1, settings["in_chans"], img_size, img_size))


def _is_other_norm(module: nn.Module) -> bool:
    """Returns whether `module` is a norm of torch or of timm (its layers/*norm*.py and layers/grn.py)."""
    files = [cls.__module__ for cls in type(module).__mro__]
    return isinstance(module, TORCH_NORMS) or any(re.match(r"timm\.layers\.(\w*norm|grn)", file) for file in files)


@contextmanager
def _timm_errors(name: str) -> Iterator[None]:
    """Raises ValueError for the many kinds of errors that timm, its hub and the network raise for bad arguments."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"timm cannot build {name} with these settings: {cause[:200]}") from error
