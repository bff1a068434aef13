"""The diffusion transformer: what its parts compute, where they start, and what may not change them."""

import math
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.models.build import build_model
from {{cookiecutter.package_name}}.models.dit.model import DiT

from ...norms.common import KINDS

SMALL = ["task=dit", "data.num_classes=10", "model.embed_dim=64", "model.depth=2"]


def make(*argv: str, device: str | None = None) -> DiT:
    model = build_model(compose([*SMALL, *argv]), device)
    assert isinstance(model, DiT)
    return model


def inputs(number: int = 4, channels: int = 1, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(number, channels, size, size, generator=generator)
    return x, torch.rand(number, generator=generator), torch.arange(number) % 11


@pytest.mark.parametrize("norm", KINDS)
@pytest.mark.parametrize(
    "argv", [[], ["model.init=dit"], ["model.qk_norm=same", "model.rope=true", "model.mlp=swiglu"]]
)
def test_every_norm_at_every_site(norm: str, argv: list[str]) -> None:
    model = make(f"norm={norm}", *argv)
    assert model(*inputs()).shape == (4, 1, 8, 8)
    adapted = [name for name, _ in model.named_parameters() if ".norm" in name and ".attn." not in name]
    assert {name.rpartition(".")[2] for name in adapted} <= {"alpha", "shift", "lam"}, "weight and bias are adaLN's"


def test_the_same_numbers_as_diffusers() -> None:
    """Its DiT has an embedding of time and class in every block; here one feeds them all."""
    argv = ["norm=ln", "model.init=dit", "model.zero_gates=false", "model.zero_head=false", "objective=ddpm"]
    ours = make(*argv, "model.embed_dim=32", "model.num_heads=2", "data.in_chans=3")
    theirs: Any = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=3,
        out_channels=6,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
        norm_eps=1e-6,
        dropout=0.0,
    )
    theirs.eval()
    state: dict[str, Any] = {"pos_embed.proj": ours.x_embedder.proj, "proj_out_1": ours.final_layer.adaLN_modulation[1]}
    state["proj_out_2"] = ours.final_layer.linear
    blocks: list[Any] = list(ours.blocks)
    for number, block in enumerate(blocks):
        time, prefix = ours.t_embedder.mlp, f"transformer_blocks.{number}"
        embedders = {"timestep_embedder.linear_1": time[0], "timestep_embedder.linear_2": time[2]}
        embedders["class_embedder.embedding_table"] = ours.y_embedder.embedding_table
        state |= {f"{prefix}.norm1.emb.{name}": layer for name, layer in embedders.items()}
        state |= {f"{prefix}.norm1.linear": block.adaLN_modulation[1], f"{prefix}.attn1.to_out.0": block.attn.proj}
        state |= {f"{prefix}.ff.net.0.proj": block.mlp.fc1, f"{prefix}.ff.net.2": block.mlp.fc2}
    weights = {f"{name}.{key}": one for name, layer in state.items() for key, one in layer.state_dict().items()}
    for number, block in enumerate(blocks):
        for key, one in block.attn.qkv.state_dict().items():
            for name, part in zip("qkv", one.chunk(3), strict=True):
                weights[f"transformer_blocks.{number}.attn1.to_{name}.{key}"] = part
    theirs.load_state_dict(weights)
    theirs.pos_embed.pos_embed = ours.pos_embed.detach()
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0  # 1 there, unlike the reference and the paper's weights
    x, t, labels = inputs(channels=3)
    steps = (1000 * t).long()
    with torch.no_grad():
        expected = theirs(x, timestep=steps, class_labels=labels).sample
        torch.testing.assert_close(ours(x, steps / 1000, labels), expected, atol=1e-5, rtol=1e-4)


def test_positions_differ_by_row_and_column() -> None:
    positions = make("model.positions=sines").pos_embed.view(4, 4, 64)
    for i in (0, 5, 15):
        rate = 10000.0 ** (-i / 16)
        expected = [math.sin(2 * rate), math.sin(3 * rate), math.cos(2 * rate), math.cos(3 * rate)]
        assert positions[2, 3, [i, 16 + i, 32 + i, 48 + i]].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_papers_start_is_the_identity_and_open_gates_are_not() -> None:
    """adaLN-Zero (arXiv 2212.09748): every block passes on what it is fed, and the model predicts 0."""
    closed = make("norm=ln", "model.init=dit")
    assert not closed(*inputs()).any()
    tokens, condition = torch.randn(2, 16, 64), torch.randn(2, 64)
    assert torch.equal(closed.blocks[0](tokens, condition), tokens)
    opened = make("norm=dyt", "model.init=dit")
    assert opened(*inputs()).any(), "a point-wise norm takes the zeros away"
    assert not torch.equal(opened.blocks[0](tokens, condition), tokens)
    first: Any = opened.blocks[0]
    for key, part in [("zero_gates", first.adaLN_modulation[1]), ("zero_head", opened.final_layer.linear)]:
        again = make("norm=dyt", "model.init=dit", f"model.{key}=true")
        name = next(name for name, module in opened.named_modules() if module is part)
        assert not again.get_submodule(name).weight.any()


@pytest.mark.parametrize("width", [64, 256])
def test_the_start_by_the_table(width: int) -> None:
    model = make(f"model.embed_dim={width}", "model.depth=3")
    block: Any = model.blocks[1]
    other: Any = make("model.init=dit", "norm=dyt", f"model.embed_dim={width}").blocks[1]
    expected = {
        block.attn.qkv: width**-0.5,
        block.attn.proj: (6 * width) ** -0.5,
        block.mlp.fc1: width**-0.5,
        block.mlp.fc2: (6 * 4 * width) ** -0.5,
        block.adaLN_modulation[1]: 0.2 * width**-0.5,
        model.t_embedder.mlp[0]: 256**-0.5,
        model.y_embedder.embedding_table: 1.0,
        other.attn.qkv: (2 / (width + 3 * width)) ** 0.5,
        other.mlp.fc2: (2 / (5 * width)) ** 0.5,
        other.adaLN_modulation[1]: (2 / (7 * width)) ** 0.5,
    }
    for layer, std in expected.items():
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1), layer
    assert block.adaLN_modulation[1].bias.unflatten(0, (6, width)).mean(1).tolist() == [0, 0, 1, 0, 0, 1]
    assert not other.adaLN_modulation[1].bias.any()


def test_no_scale_depends_on_the_width() -> None:
    """Under fan_in, from one alpha: of what the attention, the last norm and the head are fed."""
    scales = []
    for width in (64, 512):
        model = make(f"model.embed_dim={width}", "norm.alpha0=1")
        seen: list[float] = []
        for layer in (model.blocks[1].attn, model.final_layer.norm_final, model.final_layer.linear):
            layer.register_forward_pre_hook(
                lambda _, args, seen=seen: seen.append(args[0].square().mean().sqrt().item())
            )
        model(*inputs(32))
        scales.append(seen)
    assert scales[0] == pytest.approx(scales[1], rel=0.1)
    assert 0.5 < scales[0][2] < 1.5


def test_in_sixteen_bits() -> None:
    model, (x, t, labels) = make("norm=derf"), inputs()
    expected = model(x, t, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x, t, labels).dtype == torch.bfloat16
    narrow = model.to(torch.bfloat16)(x.bfloat16(), t, labels)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("argv", [[], ["model.init=dit", "model.positions=sines", "model.rope=true"]], ids=str)
def test_a_model_from_meta_has_the_same_weights_and_buffers(argv: list[str]) -> None:
    first, late = make(*argv), make(*argv, device="meta").to_empty(device="cpu")
    torch.manual_seed(0)
    late.init_weights()
    for tensors in ("named_parameters", "named_buffers"):
        torch.testing.assert_close(dict(getattr(late, tensors)()), dict(getattr(first, tensors)()), rtol=0, atol=0)


def test_activation_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for argv in ([], ["model.checkpointing=true"]):
        model = make(*argv).train()
        model(*inputs()).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)
