"""Models of timm with the norm given at construction, and their trained weights."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

NormLayer = Callable[..., nn.Module]

TORCH_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.modules.batchnorm._NormBase)


def create(
    norm_layer: NormLayer,
    name: str,
    img_size: int,
    own_keys: Sequence[str],
    kwargs: Mapping[str, Any] | None,
    device: torch.device | str | None = None,
    channels_first: bool = False,
    **settings: Any,
) -> nn.Module:
    """Returns a timm model whose norms are all `norm_layer`.

    Args:
        norm_layer: called as `norm_layer(dim, device=..., dtype=...)`; no positional arguments in a partial.
        name: timm's name of the architecture.
        own_keys: keys of section `model`, which `kwargs` must not have.
        kwargs: more arguments of timm's constructor.
        channels_first: the norms are over maps (B, C, H, W), not over the last dimension.
        settings: arguments of timm's constructor, in_chans and num_classes among them.

    Raises:
        ValueError: no such model, sizes that do not fit, or a model that does not take all its norms from outside.
    """
    taken = {"norm_layer", "checkpoint_path", "cache_dir", *own_keys, *settings}
    if wrong := [key for key in kwargs or {} if key in taken or key.startswith("pretrained")]:
        raise ValueError(f"kwargs has {', '.join(wrong)}: expected no key of the model, and none that loads weights")
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name}; timm.list_models() lists them")
    settings |= kwargs or {}
    with timm_errors(name):
        _check_norms(norm_layer, name, img_size, channels_first, settings)
        with torch.device(device or "cpu"):
            return _create(name, img_size, norm_layer=norm_layer, **settings)


def load_pretrained(weights: str, model: Mapping[str, Any], own_keys: Sequence[str], heads: Sequence[str]) -> nn.Module:
    """Returns timm's own model with trained weights, for `init=`.

    Args:
        weights: timm/<name>, which timm fetches or has cached; or a file (safetensors or torch.save) with weights of
            the architecture that `model` describes. The number of classes is that of the weights.
        model: section `model` of the config.
        own_keys: its keys that are no arguments of timm's constructor.
        heads: names that the last layer may have.

    Raises:
        ValueError: no such weights, or weights that do not fit.
    """
    kwargs = {"in_chans": model["in_chans"], **(model["kwargs"] or {})}
    with timm_errors(weights):
        if weights.startswith("timm/"):
            return _create(weights.removeprefix("timm/"), model["img_size"], pretrained=True, **kwargs)
        if not Path(weights).expanduser().is_file():
            raise ValueError("there is no such run, checkpoint or file; timm/<name> takes weights of timm")
        state = load_state_dict(str(Path(weights).expanduser()), weights_only=True)
        arch = {key: value for key, value in model.items() if key not in own_keys} | kwargs
        sizes = [len(state[f"{head}.weight"]) for head in heads if f"{head}.weight" in state]
        classes = sizes[0] if sizes else model["num_classes"]
        trained = _create(model["name"], model["img_size"], num_classes=classes, **arch)
        trained.load_state_dict(state)
        return trained


@contextmanager
def timm_errors(name: str) -> Iterator[None]:
    """Raises ValueError for the many kinds of errors that timm, its hub and the network raise for bad arguments."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"timm cannot build {name} with these settings: {cause[:200]}") from error


def is_other_norm(module: nn.Module) -> bool:
    """Returns whether `module` is a norm of torch or of timm (its layers/*norm*.py and layers/grn.py)."""
    files = [cls.__module__ for cls in type(module).__mro__]
    return isinstance(module, TORCH_NORMS) or any(re.match(r"timm\.layers\.(\w*norm|grn)", file) for file in files)


def _create(name: str, img_size: int, **settings: Any) -> nn.Module:
    create = partial(timm.create_model, name, **settings)
    try:
        return create(img_size=img_size)
    except TypeError as error:  # models for any size of image have no such argument
        if "img_size" not in str(error):
            raise
        return create()


def _check_norms(
    norm_layer: NormLayer, name: str, img_size: int, channels_first: bool, settings: Mapping[str, Any]
) -> None:
    """Raises ValueError unless `norm_layer` makes all norms, in this layout; found out on the meta device."""
    made = []
    other = ("channels-last tokens", "a CNN") if channels_first else ("channels-first maps", "a transformer or an MLP")

    def recorded(dim: int, **factory: Any) -> nn.Module:
        def check_layout(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].shape[1 if channels_first else -1] != dim:
                raise ValueError(f"{name} normalises {other[0]}; choose {other[1]}")

        made.append(norm_layer(dim, **factory))
        made[-1].register_forward_pre_hook(check_layout)
        return made[-1]

    with torch.device("meta"):
        model = _create(name, img_size, norm_layer=recorded, **settings)
        own = {part for norm in made for part in norm.modules()}
        foreign = [module for module in model.modules() if module not in own and is_other_norm(module)]
        if not made or foreign:
            raise ValueError(f"{name} builds {len(foreign) or 'all'} of its norms itself; choose another model")
        model.eval()(torch.empty(1, settings["in_chans"], img_size, img_size))
