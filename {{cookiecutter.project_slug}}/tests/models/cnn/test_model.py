"""The CNN family: networks, presets, and what makes point-wise norms and no norm work in them."""

import math
from typing import Any

import pytest
import timm
import torch
from omegaconf import DictConfig
from timm.layers import ScaledStdConv2d
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from {{cookiecutter.package_name}} import config
from {{cookiecutter.package_name}}.models.classification.timm_models import is_other_norm
from {{cookiecutter.package_name}}.models.cnn.model import CifarResNet, branch_ends
from {{cookiecutter.package_name}}.norms import PointwiseNorm, is_norm
from {{cookiecutter.package_name}}.train import build_model, build_module

from ...norms.common import KINDS

PRESETS = [name for name in config.groups()["model"] if name.startswith("cnn_")]
IMAGENET = ["data=imagenet", "trainer=cpu"]
CONVNEXT = ["model.name=convnext_tiny", "model.kwargs.conv_mlp=true"]


def compose(argv: list[str]) -> DictConfig:
    return config.compose(["task=cnn", *argv])


def build(*argv: str, device: str | None = None) -> Any:
    return build_model(compose([*argv]), device=device)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in net.named_parameters()}


@pytest.mark.parametrize(("size", "theirs"), [("18", resnet18), ("50", resnet50)])
def test_resnets_are_those_of_torchvision(size: str, theirs: Any) -> None:
    net = build(f"model=cnn_resnet{size}", *IMAGENET, device="meta")
    with torch.device("meta"):
        assert shapes(net) == shapes(theirs())
    norms = sum(is_norm(module) for module in net.modules())
    with_alpha = build(f"model=cnn_resnet{size}", "norm=dyt", "norm.alpha_per=layer", *IMAGENET, device="meta")
    assert count(with_alpha) == count(net) + norms


def test_parameters_as_published() -> None:
    """ResNet-20 has 0.27 M (He et al. 2015, table 6), ConvNeXt-B 89 M and ConvNeXt-T 29 M (Liu et al. 2022)."""
    resnet20 = count(build("model.depth=3", "data.in_chans=3", "data.mean=[0.5]", "data.std=[0.5]"))
    weights = 16 * 27 + 6 * 2304 + (16 + 5 * 32) * 32 * 9 + (32 + 5 * 64) * 64 * 9
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    shortcuts = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64  # which the paper's option A has not
    assert resnet20 == weights + norms + shortcuts + 640 + 10
    assert round((resnet20 - shortcuts) / 1e6, 2) == 0.27
    for name, millions in ("tiny", 29), ("base", 89):
        net = build(f"model=cnn_convnext_{name}", "norm=ln", *IMAGENET, device="meta")
        assert round(count(net) / 1e6) == millions
        with torch.device("meta"):
            assert shapes(net) == shapes(timm.create_model(f"convnext_{name}", conv_mlp=True))


@pytest.mark.parametrize("norm", KINDS)
@pytest.mark.parametrize("model", ["cnn_digits", "cnn_resnet18", "cnn_convnext_tiny"])
def test_every_norm_is_the_only_norm(norm: str, model: str) -> None:
    data = [] if model == "cnn_digits" else [*IMAGENET, "data.img_size=32"]
    net = build(f"norm={norm}", f"model={model}", *data, device="meta")
    ours = {part for module in net.modules() if is_norm(module) for part in module.modules()}
    assert ours
    assert not [module for module in net.modules() if is_other_norm(module) and module not in ours]
    images = torch.empty(2, net.conv1.in_channels if model == "cnn_digits" else 3, 32, 32, device="meta")
    assert net(images).shape == (2, 10 if model == "cnn_digits" else 1000)


@pytest.mark.parametrize("norm", KINDS)
def test_a_step_with_every_norm(norm: str) -> None:
    torch.manual_seed(0)
    task = build_module(compose([f"norm={norm}", "model.width=4", "model.depth=1", "model.se=true"]))
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    images, target = torch.randn(8, 1, 8, 8), torch.arange(8)
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        losses.append(task.training_step((images, target), 0))
        optimizer.zero_grad()
        losses[-1].backward()
        assert all(one.grad is not None and one.grad.isfinite().all() for one in task.model.parameters())
        optimizer.step()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("model", "norm"), [("resnet18", "bn"), ("convnext_tiny", "ln")])
def test_it_computes_what_timm_computes(model: str, norm: str) -> None:
    theirs: Any = timm.create_model(model, num_classes=7)
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2)
    ours = build(f"model=cnn_{model}", f"norm={norm}", *IMAGENET, "data.num_classes=7")
    state = {name: one.view(ours.state_dict()[name].shape) for name, one in theirs.state_dict().items()}
    ours.load_state_dict(state)  # the convolutions of conv_mlp are timm's linear layers
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-4)


def test_sizes_of_the_small_resnet() -> None:
    """Full, half and quarter size, also of 8 pixels."""
    net, sizes = build("model.depth=2"), []
    for block in net.blocks:
        block.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    net(torch.randn(1, 1, 8, 8))
    assert sizes == [(16, 8, 8)] * 2 + [(32, 4, 4)] * 2 + [(64, 2, 2)] * 2
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in build("model.drop_path=0.5").blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize("model", ["cnn_digits", "cnn_resnet18"])
def test_se_is_at_the_end_of_every_branch(model: str) -> None:
    net = build(f"model={model}", "model.se=true")
    branches = list(branch_ends(net))
    assert len(branches) == sum(isinstance(module, SEModule) for module in net.modules())


@pytest.mark.parametrize("norm", ["bn", "dyt", "dyisru", "ln", "none"])
@pytest.mark.parametrize("standardized", [False, True])
def test_zero_init_last_makes_blocks_the_identity(norm: str, standardized: bool) -> None:
    argv = ["model.zero_init_last=true", f"model.weight_standardization={str(standardized).lower()}", "model.se=true"]
    net = build(f"norm={norm}", *argv).eval()
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(net.blocks[0](x), x)
    shortcut = net.blocks[2].downsample(x)
    torch.testing.assert_close(net.blocks[2](x), shortcut.relu())
    net.train()(torch.randn(4, 1, 8, 8)).square().mean().backward()
    ends = [norm if getattr(norm, "weight", None) is not None else conv for conv, norm in branch_ends(net)]
    learning = [one.gain if isinstance(one, ScaledStdConv2d) else one.weight for one in ends]
    assert all(weight.grad.abs().sum() > 0 for weight in learning)


def test_without_zero_init_last_every_norm_starts_alike() -> None:
    """timm's own ResNets start some at 0."""
    net = build("model=cnn_resnet18", "model.zero_init_last=false", "norm=derf", "norm.weight0=2")
    assert all((module.weight == 2).all() for module in net.modules() if is_norm(module))


@pytest.mark.parametrize("norm", ["dyt", "isru", "dyisru", "derf"])
def test_fan_in_keeps_the_scale_through_relu_and_slope(norm: str) -> None:
    """Of an input so small that the curve is a line: std 0.01 behind conv, norm and ReLU is std 0.01 again."""
    torch.manual_seed(0)
    net = build(f"norm={norm}", "norm.alpha0=0.3", "model.width=64", "model.init=fan_in")
    block, x = net.blocks[0], 0.01 * torch.randn(8, 64, 16, 16).relu() * math.sqrt(2)
    y = block.act1(block.bn1(block.conv1(x)))
    assert y.square().mean().sqrt().item() == pytest.approx(0.01, rel=0.1)


def test_standardized_convolutions_keep_the_scale() -> None:
    """Behind a ReLU the variance is that of the input, whatever the filters' scale and mean."""
    torch.manual_seed(0)
    net = build("norm=none", "model.width=64", "model.weight_standardization=true")
    convs = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert convs
    assert all(isinstance(conv, ScaledStdConv2d) and conv.bias is not None for conv in convs)
    conv = net.blocks[0].conv1
    nn.init.normal_(conv.weight, mean=3.0, std=7.0)
    y = conv(torch.randn(8, 64, 16, 16).relu())[..., 1:-1, 1:-1]
    assert y.std().item() == pytest.approx(1.0, rel=0.1)


def test_agc_bounds_the_gradient_of_every_filter() -> None:
    task = build_module(compose(["norm=none", "task.agc=0.01"]))
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    task._trainer = None
    net: Any = task.model
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    task.configure_gradient_clipping(None)

    def per_filter(tensor: Tensor) -> Tensor:
        return tensor.flatten(1).norm(dim=1)

    conv = net.blocks[0].conv1.weight
    torch.testing.assert_close(per_filter(conv.grad), 0.01 * per_filter(conv.detach()).clamp(min=1e-3))
    assert (net.fc.weight.grad == 100).all(), "the head is free"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build(preset: str) -> None:
    data = [] if preset == "cnn_digits" else IMAGENET
    net = build(f"model={preset}", "norm=dyt", *data, device="meta")
    norms = [module for module in net.modules() if isinstance(module, PointwiseNorm)]
    assert norms
    assert all(norm.alpha.shape == norm.weight.shape for norm in norms)


@pytest.mark.parametrize("norm", ["ln", "dyt"])
def test_the_experiment_is_the_papers(norm: str) -> None:
    """ConvNeXt's recipe (arXiv 2201.03545, table 5), kept by arXiv 2503.10622."""
    cfg = compose(["experiment=cnn_convnext_base_imagenet", f"norm={norm}", "trainer=cpu"])
    assert (cfg.data.total_batch_size, cfg.trainer.max_epochs) == (4096, 300)
    assert (cfg.optim.lr, cfg.optim.weight_decay, cfg.optim.clip_norm) == (4e-3, 0.05, 0.0)
    assert list(cfg.optim.betas) == [0.9, 0.999]
    assert round(cfg.schedule.warmup_share * 300) == 20
    assert (cfg.model.drop_path, cfg.ema.decay, cfg.task.label_smoothing) == (0.5, 0.9999, 0.1)
    assert (cfg.data.mixup.mixup_alpha, cfg.data.mixup.cutmix_alpha, cfg.data.augment.re_prob) == (0.8, 1.0, 0.25)
    assert cfg.data.augment.auto_augment == "rand-m9-mstd0.5-inc1"
    net: Any = build_module(cfg, device="meta").model
    assert net.stages[0].blocks[0].gamma.shape == (128,)
    assert cfg.norm.get("alpha_per", "layer") == "layer"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.name=vit_small_patch16_224"], "channels-last"),
        (["model.name=efficientnet_b0"], "timm cannot build|norms itself"),
        (["model.name=convnext_tiny"], "conv MLP"),
        ([*CONVNEXT, "model.weight_standardization=true"], "weight_standardization is for ResNets"),
        ([*CONVNEXT, "model.se=true"], "block_args"),
        (["model.name=resnet_gigantic"], "no model"),
        (["model.kwargs.pretrained=true"], "pretrained"),
    ],
)
def test_models_that_cannot_be_built(arguments: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        build("model=cnn_timm", "norm=dyt", *IMAGENET, *arguments, device="meta")
    assert "\n" not in str(caught.value)


def test_activation_checkpointing_changes_no_gradient() -> None:
    argv = ["model=cnn_resnet18", "norm=gn", *IMAGENET, "data.img_size=32", "data.num_classes=5"]
    nets = [build(*argv, f"model.checkpointing={value}") for value in ("false", "true")]
    images = torch.randn(2, 3, 32, 32)
    for net in nets:
        net.train()(images).square().mean().backward()
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_timm_builds_the_small_resnet_by_its_name() -> None:
    assert isinstance(timm.create_model("resnet_cifar", num_classes=3), CifarResNet)
