"""The diffusion transformer: what its parts compute, where they start, and what may not change them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.models.build import build_net
from {{cookiecutter.package_name}}.models.dit.model import DiT
from {{cookiecutter.package_name}}.models.layers import sines
from {{cookiecutter.package_name}}.norms import names

SMALL = ["task=dit", "data.num_classes=10", "model.embed_dim=64", "model.depth=2"]


def make(*argv: str, device: str | None = None) -> DiT:
    net = build_net(compose([*SMALL, *argv]), device)
    assert isinstance(net, DiT)
    return net


def inputs(number: int = 4, channels: int = 1, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(number, channels, size, size, generator=generator)
    return x, torch.rand(number, generator=generator), torch.arange(number) % 11


@pytest.mark.parametrize("norm", names())
@pytest.mark.parametrize(
    "argv", [[], ["model.init=dit"], ["model.qk_norm=true", "model.rope=true", "model.mlp=swiglu"]]
)
def test_every_norm_at_every_place(norm: str, argv: list[str]) -> None:
    net = make(f"norm={norm}", *argv)
    assert net(*inputs()).shape == (4, 1, 8, 8)
    inner = {
        name.rpartition(".")[2] for name, _ in net.named_parameters() if "_norm." in name or name.startswith("norm.")
    }
    if net.blocks[0].attn.q_norm is None:  # those of queries and keys have a weight
        assert inner <= {"alpha", "shift"}, "scale and shift are the conditions'"


def test_a_patch_is_read_and_written_in_its_place() -> None:
    """With the gates closed a patch knows nothing of the others."""
    net = make("norm=ln", "model.init=dit", "model.zero_gates=true", "model.zero_head=false", "data.in_chans=3")
    x, t, labels = inputs(1, channels=3)
    before = net(x, t, labels)
    x[0, 1, 5, 2] += 1
    changed = (net(x, t, labels) != before)[0]
    assert changed[:, 4:6, 2:4].all()
    assert changed.sum() == 3 * 4


def test_positions_are_sines_of_row_and_column() -> None:
    net = make("model.positions=sines")
    for token, row, column in [(0, 0, 0), (3, 0, 3), (6, 1, 2), (13, 3, 1)]:
        for i in (0, 5, 15):
            rate = 10000.0 ** (-i / 16)
            expected = [math.cos(row * rate), math.sin(row * rate), math.cos(column * rate), math.sin(column * rate)]
            assert net.places[token, [i, 16 + i, 32 + i, 48 + i]].tolist() == pytest.approx(expected, abs=1e-6)
    assert not any("places" in name for name in net.state_dict())


def test_time_is_spelt_in_thousandths() -> None:
    seen = []
    net = make()
    net.time.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x, _, labels = inputs(2)
    net(x, torch.tensor([0.0, 0.25]), labels[:2])
    rate = 10000.0 ** (-7 / 128)
    assert seen[0][:, [7, 135]].flatten().tolist() == pytest.approx(
        [1, 0, math.cos(250 * rate), math.sin(250 * rate)], abs=1e-4
    )
    assert sines(torch.tensor(3.0), 8).shape == (8,)


def test_time_and_class_reach_every_token() -> None:
    net = make()
    x, t, labels = inputs()
    out = net(x, t, labels)
    assert (net(x, 1 - t, labels) != out).all()
    assert (net(x, t, torch.full_like(labels, 10)) != out).all(), "the label of no class too"


def test_the_papers_start_is_the_identity_and_open_gates_are_not() -> None:
    """adaLN-Zero (arXiv 2212.09748): every block passes on what it is fed, and the net predicts 0."""
    closed = make("norm=ln", "model.init=dit")
    assert not closed(*inputs()).any()
    tokens, condition = torch.randn(2, 16, 64), torch.randn(2, 64)
    assert torch.equal(closed.blocks[0](tokens, condition), tokens)
    opened = make("norm=dyt", "model.init=dit")
    assert opened(*inputs()).any(), "a point-wise norm takes the zeros away"
    assert not torch.equal(opened.blocks[0](tokens, condition), tokens)
    for key, part in [("zero_gates", opened.blocks[0].modulation), ("zero_head", opened.head)]:
        again = make("norm=dyt", "model.init=dit", f"model.{key}=true")
        name = next(name for name, module in opened.named_modules() if module is part)
        assert not again.get_submodule(name).weight.any()


@pytest.mark.parametrize("width", [64, 256])
def test_the_start_by_the_table(width: int) -> None:
    net = make(f"model.embed_dim={width}", "model.depth=3")
    block, other = net.blocks[1], make("model.init=dit", "norm=dyt", f"model.embed_dim={width}").blocks[1]
    expected = {
        block.attn.qkv: width**-0.5,
        block.attn.out: (6 * width) ** -0.5,
        block.ffn.up: width**-0.5,
        block.ffn.down: (6 * 4 * width) ** -0.5,
        block.modulation: 0.2 * width**-0.5,
        net.time[0]: 256**-0.5,
        net.classes: 1.0,
        other.attn.qkv: (2 / (width + 3 * width)) ** 0.5,
        other.ffn.down: (2 / (5 * width)) ** 0.5,
        other.modulation: (2 / (7 * width)) ** 0.5,
    }
    for layer, std in expected.items():
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1), layer
    assert block.modulation.bias.unflatten(0, (6, width)).mean(1).tolist() == [0, 0, 1, 0, 0, 1]
    assert not other.modulation.bias.any()


def test_no_scale_depends_on_the_width() -> None:
    """Under fan_in, from one alpha: of what the attention, the last norm and the head are fed."""
    scales = []
    for width in (64, 512):
        net = make(f"model.embed_dim={width}", "norm.alpha0=1")
        seen: list[float] = []
        for layer in (net.blocks[1].attn, net.norm, net.head):
            layer.register_forward_pre_hook(
                lambda _, args, seen=seen: seen.append(args[0].square().mean().sqrt().item())
            )
        net(*inputs(32))
        scales.append(seen)
    assert scales[0] == pytest.approx(scales[1], rel=0.1)
    assert 0.5 < scales[0][2] < 1.5


def test_again_and_after_meta_the_same_numbers() -> None:
    """Buffers that no state dict has are among them."""

    def tensors(net: DiT) -> dict[str, Tensor]:
        return {**dict(net.named_parameters()), **dict(net.named_buffers())}

    for argv in ([], ["model.init=dit", "model.positions=sines", "model.rope=true"]):
        first = tensors(make(*argv))
        again, late = make(*argv), make(*argv, device="meta").to_empty(device="cpu")
        for net in (again, late):
            torch.manual_seed(0)
            net.init_weights()
            drawn = tensors(net)
            assert first.keys() == drawn.keys()
            assert all(torch.equal(first[name], drawn[name]) for name in first)


def gradients(net: nn.Module) -> list[Any]:
    net.train()
    net(*inputs()).square().mean().backward()
    return [parameter.grad for parameter in net.parameters()]


def test_computing_anew_changes_no_gradient() -> None:
    for one, other in zip(gradients(make()), gradients(make("model.checkpointing=true")), strict=True):
        torch.testing.assert_close(one, other)


def test_swiglu_is_as_large_as_the_mlp() -> None:
    sizes = [sum(p.numel() for p in make(f"model.mlp={mlp}").parameters()) for mlp in ("gelu", "swiglu")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_in_sixteen_bits() -> None:
    net, (x, t, labels) = make("norm=derf"), inputs()
    expected = net(x, t, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x, t, labels).dtype == torch.bfloat16
    narrow = net.to(torch.bfloat16)(x.bfloat16(), t, labels)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), expected, atol=0.1, rtol=0.1)
