"""Residual connections against their formulas, and in every family that has them."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.models import get_family
from {{cookiecutter.package_name}}.models.build import build_model
from {{cookiecutter.package_name}}.models.init import fan_in_
from {{cookiecutter.package_name}}.models.residual import SCHEMES, Residual
from {{cookiecutter.package_name}}.norms import make_norm

from ..conftest import FAMILIES
from ..runs import Tiny

DIM, DEPTH, INDEX = 6, 4, 2
Branch = Callable[[Tensor], Tensor]
Formula = Callable[[Tensor, nn.Module, Branch, Any], Tensor]
FORMULAS: dict[tuple[str, str], Formula] = {
    ("plain", "pre"): lambda x, norm, f, r: x + f(norm(x)),
    ("plain", "post"): lambda x, norm, f, r: norm(x + f(x)),
    ("plain", "peri"): lambda x, norm, f, r: x + r.out_norm(f(norm(x))),
    ("skipinit", "pre"): lambda x, norm, f, r: x + r.scale * f(norm(x)),
    ("rezero", "pre"): lambda x, norm, f, r: x + r.scale * f(norm(x)),
    ("layerscale", "peri"): lambda x, norm, f, r: x + r.scale * r.out_norm(f(norm(x))),
    ("fixup", "pre"): lambda x, norm, f, r: x + r.scale * f(norm(x) + r.bias_in) + r.bias_out,
    ("deepnorm", "post"): lambda x, norm, f, r: norm((2 * DEPTH) ** 0.25 * x + f(x)),
    ("lns", "pre"): lambda x, norm, f, r: x + f(norm(x) / math.sqrt(INDEX + 1)),
}
RESIDUAL_FAMILIES = [tiny for tiny in FAMILIES if "residual" in compose(tiny.argv).model]


@pytest.mark.parametrize(("scheme", "placement"), FORMULAS)
def test_formula(scheme: str, placement: str) -> None:
    torch.manual_seed(0)
    norm, branch = nn.LayerNorm(DIM).double(), nn.Linear(DIM, DIM).double()
    residual = Residual(DIM, INDEX, DEPTH, partial(make_norm, "dyt", DIM), scheme, placement).double()
    with torch.no_grad():
        for parameter in residual.parameters():
            parameter.add_(torch.rand(parameter.shape))
    x = torch.randn(3, 5, DIM, dtype=torch.float64)
    expected = FORMULAS[scheme, placement](x, norm, branch, residual)
    torch.testing.assert_close(residual(x, norm, branch), expected)


@pytest.mark.parametrize(
    ("scheme", "depth", "start"),
    [
        ("skipinit", 4, 0.0),
        ("rezero", 4, 0.0),
        ("fixup", 4, 1.0),
        *[("layerscale", *one) for one in ((18, 0.1), (24, 1e-5), (25, 1e-6))],
    ],
)
def test_scales_start_as_published(scheme: str, depth: int, start: float) -> None:
    scale = Residual(DIM, 0, depth, nn.Identity, scheme).scale
    assert scale is not None
    assert scale.shape == ((DIM,) if scheme == "layerscale" else (1,))
    torch.testing.assert_close(scale.data, torch.full_like(scale.data, start))


@pytest.mark.parametrize(
    ("scheme", "gains"),
    [
        ("plain", {"q_proj": 1, "v_proj": 1, "up_proj": 1, "o_proj": 8**-0.5}),
        ("fixup", {"q_proj": 8**-0.5, "v_proj": 8**-0.5, "up_proj": 8**-0.5, "o_proj": 0}),
        ("deepnorm", {"q_proj": 1, "v_proj": 32**-0.25, "up_proj": 32**-0.25, "o_proj": 32**-0.25}),
        ("skipinit", {"q_proj": 1, "v_proj": 1, "up_proj": 1, "o_proj": 1}),
    ],
)
def test_branches_start_with_published_gains(scheme: str, gains: dict[str, float]) -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({name: nn.Linear(256, 256) for name in gains})
    fan_in_(net, [net["o_proj"]], depth=4, residual=scheme)
    for name, gain in gains.items():
        assert net[name].weight.std().item() == pytest.approx(gain / 16, rel=0.02)


def test_deepnorm_scales_the_values_of_a_fused_projection() -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"attn": nn.ModuleDict({"qkv": nn.Linear(256, 768)})})
    fan_in_(net, [], depth=4, residual="deepnorm")
    stds = [part.std().item() * 16 for part in net.get_parameter("attn.qkv.weight").chunk(3)]
    assert stds == pytest.approx([1, 1, 32**-0.25], rel=0.02)


def built(tiny: Tiny, *argv: str) -> tuple[nn.Module, tuple[Any, ...]]:
    cfg = compose([*tiny.argv, "norm=none", "model.init=fan_in", *argv])
    for key, value in ("vocab_size", 50), ("num_classes", 10), ("in_chans", 1), ("img_size", 8), ("context", 16):
        if key in cfg.data:
            cfg.data[key] = value
    family = get_family(cfg.task.name)
    model = build_model(cfg)
    module = family.build_module(model, cfg, optim={}, schedule={})
    return model, module.model_inputs(family.example_batch(cfg, 4))


@pytest.mark.parametrize("scheme", ["skipinit", "rezero", "fixup"])
@pytest.mark.parametrize("tiny", RESIDUAL_FAMILIES, ids=str)
def test_without_a_norm_blocks_start_as_the_identity(tiny: Tiny, scheme: str) -> None:
    model, inputs = built(tiny, f"model.residual={scheme}")
    blocks: list[bool] = []
    for block in model.get_submodule("layers" if hasattr(model, "layers") else "blocks").children():
        block.register_forward_hook(lambda _, args, output: blocks.append(torch.equal(args[0], output)))
    model(*inputs)
    assert blocks
    assert all(blocks)


@pytest.mark.parametrize("scheme", [*SCHEMES, "peri", "post"])
@pytest.mark.parametrize("tiny", RESIDUAL_FAMILIES, ids=str)
def test_a_step_changes_every_parameter_of_the_connections(tiny: Tiny, scheme: str) -> None:
    """Two steps, since a scale of 0 lets no gradient into its branch at first."""
    placement = scheme if scheme in ("peri", "post") else "post" if scheme == "deepnorm" else "pre"
    named = "plain" if scheme in ("peri", "post") else scheme
    norm = "ln" if placement != "pre" else "none"
    model, inputs = built(tiny, f"model.residual={named}", f"model.norm_placement={placement}", f"norm={norm}")
    before = {name: one.detach().clone() for name, one in model.named_parameters() if "residual" in name}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        output = model(*inputs)
        output.float().square().mean().backward()
        optimizer.step()
    assert output.isfinite().all()
    for name, old in before.items():
        assert not torch.equal(model.get_parameter(name), old), name
