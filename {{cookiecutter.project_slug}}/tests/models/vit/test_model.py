"""The ViT family: networks, presets, and its task."""

from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import nn

from {{cookiecutter.package_name}} import config
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.models.vit.model import build
from {{cookiecutter.package_name}}.norms import DyT, is_norm, make_norm
from {{cookiecutter.package_name}}.norms.normalizers import RMSNorm
from {{cookiecutter.package_name}}.train import build_model, build_module

from ...norms.common import KINDS

PRESETS = [name for name in config.groups()["model"] if name.startswith("vit_")]
IMAGENET = ["data=imagenet", "trainer=cpu"]


def compose(argv: list[str]) -> DictConfig:
    return config.compose(["task=vit", *argv])


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in net.named_parameters()}


@pytest.mark.parametrize(
    ("size", "norm", "parameters"),
    # published: ViT-B with average pooling has 86,567,656 and 25 norms, ViT-L 49 norms
    [
        ("base", "ln", 86_567_656),
        ("base", "dyt", 86_567_681),
        ("base", "derf", 86_567_706),
        ("base", "rmsnorm", 86_548_456),
    ],
)
def test_parameters_as_published(size: str, norm: str, parameters: int) -> None:
    net = build_model(compose([f"model=vit_{size}", f"norm={norm}", *IMAGENET]), device="meta")
    assert count(net) == parameters


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_sizes_are_those_of_timm(size: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(f"vit_{size}_patch16_224", global_pool="avg")
    ours = build_model(compose([f"model=vit_{size}", "norm=ln", *IMAGENET]), device="meta")
    assert shapes(ours) == shapes(theirs)
    norms = [module for module in ours.modules() if is_norm(module)]
    assert isinstance(theirs.blocks, nn.Sequential)
    assert len(norms) == 2 * len(theirs.blocks) + 1


@pytest.mark.parametrize("norm", KINDS)
def test_every_norm_is_the_only_norm(norm: str) -> None:
    net = build_model(compose([f"norm={norm}", "model.depth=2", "model.qk_norm=same"]))
    norms = [module for module in net.modules() if is_norm(module)]
    inner = {child for module in norms for child in module.modules()}
    assert len(norms) == 2 * 4 + 1
    others = (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d)
    assert not [module for module in net.modules() if isinstance(module, others) and module not in inner]
    assert net(torch.randn(3, 1, 8, 8)).shape == (3, 10)


def test_queries_and_keys_may_have_another_norm() -> None:
    net = build_model(compose(["norm=dyt", "model.depth=2", "model.qk_norm=rmsnorm"]))
    kinds = {name.rpartition(".")[2]: type(norm) for name, norm in net.named_modules() if is_norm(norm)}
    assert kinds == {"norm1": DyT, "norm2": DyT, "fc_norm": DyT, "q_norm": RMSNorm, "k_norm": RMSNorm}


@pytest.mark.parametrize("norm", KINDS)
def test_timm_takes_it_as_norm_layer(norm: str) -> None:
    def norm_layer(dim: int, **factory: Any) -> nn.Module:  # not a partial, whose positional arguments timm drops
        return make_norm(norm, dim, **factory)

    sizes: dict[str, Any] = {"img_size": 32, "depth": 1, "qk_norm": True, "global_pool": "avg"}
    net = timm.create_model("vit_tiny_patch16_224", norm_layer=norm_layer, **sizes)
    made = [module for module in net.modules() if is_norm(module)]
    assert len(made) == 5  # two of the block, those of queries and keys, the last
    assert net(torch.randn(2, 3, 32, 32)).isfinite().all()


def test_layernorm_vit_computes_what_timm_computes() -> None:
    settings: dict[str, Any] = {
        "img_size": 32,
        "depth": 2,
        "embed_dim": 48,
        "num_heads": 3,
        "num_classes": 7,
        "global_pool": "avg",
    }
    theirs = timm.create_model("vit_tiny_patch16_224", **settings)
    ours = build(partial(make_norm, name="ln"), "vit_tiny_patch16_224", in_chans=3, **settings)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build(preset: str) -> None:
    data = [] if preset == "vit_digits" else IMAGENET
    net = build_model(compose([f"model={preset}", *data]), device="meta")
    assert any(is_norm(module) for module in net.modules())


@pytest.mark.parametrize("norm", ["ln", "dyt", "derf"])
@pytest.mark.parametrize("size", ["base", "large"])
def test_experiments_are_the_papers(size: str, norm: str) -> None:
    """Against arXiv 2503.10622 (appendix) and 2512.10938: batch, schedule, regularisation, by size and norm."""
    cfg = compose([f"experiment=vit_{size}_imagenet", f"norm={norm}", "trainer=cpu"])
    assert (cfg.norm.name, cfg.model.name) == (norm, f"vit_{size}_patch16_224")
    assert (cfg.data.total_batch_size, cfg.trainer.max_epochs) == (4096, 300)
    assert (cfg.optim.lr, cfg.optim.weight_decay, cfg.optim.clip_norm) == (4e-3, 0.05, 0.0)
    assert list(cfg.optim.betas) == {"base": [0.9, 0.999], "large": [0.9, 0.95]}[size]
    assert round(cfg.schedule.warmup_share * 300) == 20
    assert cfg.optim.lr * cfg.schedule.final_factor == pytest.approx(1e-6)
    drop_path = {("base", True): 0.15, ("large", True): 0.5, ("base", False): 0.1, ("large", False): 0.4}
    assert cfg.model.drop_path == drop_path[size, norm == "derf"]
    assert (cfg.model.init, cfg.ema.decay, cfg.task.label_smoothing) == ("timm", 0.9999, 0.1)
    assert (cfg.data.mixup.mixup_alpha, cfg.data.mixup.cutmix_alpha, cfg.data.augment.re_prob) == (0.8, 1.0, 0.25)
    task = build_module(cfg, device="meta")
    assert task.eval_model is not task.model


@pytest.mark.parametrize(
    "name", ["deit3_small_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s16_224", "cait_xxs24_224"]
)
def test_other_timm_models_take_the_norm(name: str) -> None:
    net = build_model(compose(["model=vit_timm", f"model.name={name}", "norm=dyt", *IMAGENET]), device="meta")
    assert not [module for module in net.modules() if isinstance(module, nn.LayerNorm)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.name=resnet50"], "channels-first"),
        (["model.name=pit_ti_224"], "timm cannot build"),
        (["model.name=twins_pcpvt_small"], "17 of its norms itself"),
        (["model.name=xcit_nano_12_p16_224"], "norms itself"),  # BatchNorm between tokens
        (["model.name=vitamin_small_224"], "norms itself"),  # LayerNorm on maps, in a convolutional stem
        (["model.name=vit_small_resnet26d_224"], "norms itself"),  # BatchNorm in its ResNet
        (["model.name=vit_gigantic"], "no model"),
        (["model.name=mixer_s16_224", "model.init=fan_in"], "fan_in"),
        (["model=vit_base", "model.patch_size=15"], "patch_size"),
        (["model=vit_base", "model.kwargs.nonsense=1"], "nonsense"),
        (["model.kwargs.img_size=32"], "img_size"),
        (["model=vit_base", "model.kwargs.depth=3"], "depth"),
        (["model.kwargs.norm_layer=ln"], "norm_layer"),
        (["model.kwargs.pretrained_cfg_overlay={}"], "pretrained"),
        (["model.kwargs.checkpoint_path=evil.pth"], "checkpoint_path"),
        (["model.kwargs.cache_dir=here"], "cache_dir"),
    ],
)
def test_models_that_cannot_be_built(arguments: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        build_model(compose(["model=vit_timm", *IMAGENET, *arguments]), device="meta")
    assert "\n" not in str(caught.value)


def test_the_data_decide_the_size_and_timm_takes_more() -> None:
    cfg = compose(["data.img_size=16", "model.kwargs.reg_tokens=4"])
    assert (cfg.model.img_size, cfg.model.kwargs.reg_tokens) == (16, 4)
    with pytest.raises(UsageError, match=r"model\.img_size: the data decide it; set data\.img_size"):
        compose(["model.img_size=16"])


def test_activation_checkpointing_changes_no_gradient() -> None:
    argv = ["model.depth=2", "data.img_size=8"]
    nets = [build_model(compose([*argv, f"model.checkpointing={value}"])) for value in ("false", "true")]
    images = torch.randn(2, 1, 8, 8)
    for net in nets:
        net.train()(images).square().mean().backward()
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_drop_path_rises_to_the_last_block() -> None:
    net = build_model(compose(["model.depth=3", "model.drop_path=0.2"]))
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in net.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_loss_of_hard_and_soft_targets_by_the_formula() -> None:
    task = build_module(compose(["model.depth=1", "task.label_smoothing=0.1", "norm=ln"]))
    task.log = lambda *_, **__: None  # type: ignore[method-assign]
    images, target = torch.randn(4, 1, 8, 8), torch.tensor([0, 3, 3, 9])
    log_p = F.log_softmax(task.model(images).double(), dim=-1)
    smooth = 0.9 * F.one_hot(target, 10) + 0.01
    expected = -(smooth * log_p).sum(-1).mean()
    torch.testing.assert_close(task.training_step((images, target), 0).double(), expected)
    mixed = F.one_hot(target, 10).float()
    torch.testing.assert_close(task.training_step((images, mixed), 0).double(), expected)
