"""CNNs of timm, and the small ResNet for CIFAR in timm's parts, with the norm given at construction.

B batch, C channels, H x W pixels, K classes: (B, C, H, W) -> (B, K). Norms are over channels-first maps.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from timm.layers import ScaledStdConv2d, create_classifier
from timm.models import register_model
from timm.models.convnext import ConvNeXtBlock
from timm.models.resnet import BasicBlock, Bottleneck, ResNet, make_blocks
from torch import Tensor, nn

from ...norms import PointwiseNorm
from ..classification import timm_models
from ..init import fan_in_, reset_norms_

OWN_KEYS = (
    "name",
    "img_size",
    "in_chans",
    "num_classes",
    "init",
    "head_gain",
    "se",
    "zero_init_last",
    "weight_standardization",
    "drop_path",
    "checkpointing",
    "device",
    "kwargs",
)
HEADS = ("fc", "head.fc")
RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))  # of a ReLU's output, which has a variance of 1 / 2 - 1 / (2 pi)


def build(
    norm_layer: timm_models.NormLayer,
    name: str,
    img_size: int,
    in_chans: int,
    num_classes: int,
    init: str = "timm",
    head_gain: float = 1.0,
    se: bool = False,
    zero_init_last: bool = False,
    weight_standardization: bool = False,
    drop_path: float = 0.0,
    checkpointing: bool = False,
    device: torch.device | str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **arch: Any,
) -> nn.Module:
    """Returns a timm model whose norms are all `norm_layer`.

    Args:
        norm_layer: called as `norm_layer(dim, channels_first=True, device=..., dtype=...)`.
        name: "resnet_cifar", or timm's name of the architecture; `arch` has its sizes.
        init: "timm", or "fan_in": every layer keeps the scale of its input in spite of the ReLU and of a point-wise
            norm's slope at 0 behind it.
        head_gain: scale of the head's weights under "fan_in".
        se: squeeze and excitation (Hu et al. 2018, arXiv 1709.01507) at the end of every branch; ResNets.
        zero_init_last: every residual branch starts at 0 (`zero_branches_`); ResNets and ConvNeXts.
        weight_standardization: convolutions standardise their filters (Brock et al. 2021, arXiv 2101.08692); ResNets.
        drop_path: stochastic depth rate of the last block; it rises linearly from 0 at the first.
        checkpointing: blocks keep only their inputs for backward.
        kwargs: more arguments of timm's constructor.

    Raises:
        ValueError: no such model, sizes that do not fit, an option that it has no place for, or a model that does not
            take all its norms from outside.
    """
    settings = {**arch, "in_chans": in_chans, "num_classes": num_classes, "drop_path_rate": drop_path}
    if se:
        settings["block_args"] = {"attn_layer": "se"}
    norm_layer = partial(norm_layer, channels_first=True)
    model: Any = timm_models.create(
        norm_layer, name, img_size, OWN_KEYS, kwargs, device, channels_first=True, **settings
    )
    if checkpointing:
        model.set_grad_checkpointing()
    if weight_standardization:
        if not isinstance(model, ResNet | CifarResNet):
            raise ValueError(f"weight_standardization is for ResNets, not for {name}")
        standardize_(model)
    if init == "fan_in":
        gain = math.sqrt(2) / slope_at_0(norm_layer)
        fan_in_(model, [], 1, model.get_classifier(), head_gain, gain)
    if zero_init_last and not any(branch_ends(model)):
        raise ValueError(f"zero_init_last is for ResNets and ConvNeXts, not for {name}")
    if zero_init_last:
        zero_branches_(model)
    else:  # which timm's ResNets have done
        reset_norms_(norm for _, norm in branch_ends(model) if norm is not None)
    return model


class CifarResNet(nn.Module):
    """The ResNet for images of 32 pixels and less (He et al. 2015, arXiv 1512.03385, section 4.2), in timm's parts.

    A 3x3 convolution, three stages of basic blocks at full, half and quarter size, the mean over all pixels. Where the
    size changes, a 1x1 convolution is the shortcut (the paper's option B).

    Args:
        width: channels of the first stage; the others have twice and four times as many.
        depth: blocks of a stage.
    """

    def __init__(
        self,
        norm_layer: timm_models.NormLayer = nn.BatchNorm2d,
        width: int = 16,
        depth: int = 3,
        in_chans: int = 3,
        num_classes: int = 10,
        drop_path_rate: float = 0.0,
        block_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.bn1 = norm_layer(width)
        self.act1 = nn.ReLU(inplace=True)
        widths = (width, 2 * width, 4 * width)
        options: Any = {"norm_layer": norm_layer, "drop_path_rate": drop_path_rate, **(block_args or {})}
        stages, _ = make_blocks(3 * (BasicBlock,), widths, 3 * (depth,), width, **options)
        self.blocks = nn.Sequential(*(block for _, stage in stages for block in stage.children()))
        self.global_pool, self.fc = create_classifier(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        return self.fc(self.global_pool(self.blocks(x)))


@register_model
def resnet_cifar(
    pretrained: bool = False,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
    **sizes: Any,
) -> CifarResNet:
    """Returns a CifarResNet, as `timm.create_model("resnet_cifar", ...)`."""
    return CifarResNet(**sizes)


def branch_ends(model: nn.Module) -> Iterator[tuple[Any, Any]]:
    """Yields the last convolution of every residual branch, and the norm behind it if there is one."""
    for block in model.modules():
        if isinstance(block, BasicBlock):
            yield block.conv2, block.bn2
        elif isinstance(block, Bottleneck):
            yield block.conv3, block.bn3
        elif isinstance(block, ConvNeXtBlock):
            yield block.mlp.fc2, None


def zero_branches_(model: nn.Module) -> None:
    """Lets every residual branch start at 0: the weight of its last norm, or else of its last convolution.

    A standardised convolution has a gain instead, with which this is SkipInit (De and Smith 2020, arXiv 2002.10444)
    with a scalar for each channel.
    """
    for conv, norm in branch_ends(model):
        weight = getattr(norm, "weight", None)
        if weight is None:
            weight = conv.gain if isinstance(conv, ScaledStdConv2d) else conv.weight
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        nn.init.zeros_(weight)


def standardize_(model: nn.Module) -> None:
    """Exchanges the convolutions without a bias, which are all but those of SE, for standardised ones with a bias."""
    convs = [(name, conv) for name, conv in model.named_modules() if isinstance(conv, nn.Conv2d) and conv.bias is None]
    for name, conv in convs:
        sizes = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        options: Any = {size: getattr(conv, size) for size in sizes}
        new: Any = ScaledStdConv2d(**options, gamma=RELU_GAIN, device=conv.weight.device)
        nn.init.zeros_(new.bias)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)


def slope_at_0(norm_layer: timm_models.NormLayer) -> float:
    """Returns the slope at 0 of a new point-wise norm; 1 for others, which no scale passes."""
    norm = norm_layer(1)
    if not isinstance(norm, PointwiseNorm):
        return 1.0
    with torch.no_grad():
        above, below = norm.double()(torch.tensor([[1e-4], [-1e-4]], dtype=torch.float64)).flatten().tolist()
    return (above - below) / 2e-4


def load_pretrained(weights: str, model: Mapping[str, Any]) -> nn.Module:
    """Returns timm's own model with trained weights, for `init=` (`timm_models.py`)."""
    return timm_models.load_pretrained(weights, model, OWN_KEYS, HEADS)
