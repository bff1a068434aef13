"""The LLaMA itself: sizes, scales, positions, causality and loss."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from {{cookiecutter.package_name}}.models.layers import rope_cos_sin
from {{cookiecutter.package_name}}.models.llm.model import build
from {{cookiecutter.package_name}}.norms import is_norm, make_norm

from ...norms.common import CAUSAL
from .models import SIZES, make, shake, some_tokens


@pytest.mark.parametrize("norm", CAUSAL)
@pytest.mark.parametrize("options", [{}, {"qk_norm": "same", "embed_scale": True}])
def test_later_tokens_do_not_matter(norm: str, options: dict[str, Any]) -> None:
    model = make(norm, **options).eval()
    tokens = some_tokens()
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 50
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    assert ((before - after)[:, 7:].abs().amax(-1) > 1e-4).all(), "and the later ones see it"


@pytest.mark.parametrize("chunk", [0, 5, 36])
def test_loss_by_float64(chunk: int) -> None:
    model = make(loss_chunk=chunk)
    targets = some_tokens(seed=1)
    targets[0, 3:9] = -100
    logits = model(some_tokens()).double()
    log_p = logits.log_softmax(-1)
    kept = targets >= 0
    expected = -log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0][kept].mean()
    torch.testing.assert_close(model(some_tokens(), targets).double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(F.cross_entropy(logits.flatten(0, 1), targets.flatten()), expected)


@pytest.mark.parametrize(
    "changes", [{"loss_chunk": 5}, {"checkpointing": True}, {"loss_chunk": 7, "checkpointing": True}]
)
@pytest.mark.parametrize("norm", ["dyt", "bn"])
def test_less_memory_the_same_gradients(changes: dict[str, Any], norm: str) -> None:
    targets = some_tokens(seed=1)
    targets[1, 4:] = -100
    whole, sparing = make(norm).double(), make(norm, **changes).double()
    losses = [model(some_tokens(), targets) for model in (whole, sparing)]
    torch.testing.assert_close(losses[1], losses[0])
    for loss in losses:
        loss.backward()
    for (name, ours), theirs in zip(sparing.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=f"the gradient of {name}")


def expected_stds(init: str, tied: bool, scaled: bool) -> dict[str, float]:
    """At width 256, with 384 hidden in each of three blocks."""
    if init == "normal":
        names = ("embed_tokens", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "o_proj", "down_proj", "lm_head")
        return dict.fromkeys(names, 0.02)
    small = 256**-0.5
    return {
        "embed_tokens": small if tied or scaled else 1.0,
        **dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), small),
        "o_proj": (256 * 6) ** -0.5,
        "down_proj": (384 * 6) ** -0.5,
        "lm_head": small if tied else 2.0 * small,
    }


@pytest.mark.parametrize("init", ["fan_in", "normal"])
@pytest.mark.parametrize(("tied", "scaled"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_scales_by_the_table(init: str, tied: bool, scaled: bool, device: str) -> None:
    """Also after a life on the meta device, where nothing has a value."""
    sizes = {"embed_dim": 256, "mlp_dim": 384, "vocab_size": 300, "depth": 3}
    model = make("dyt", device=device, init=init, tied=tied, embed_scale=scaled, head_gain=2.0, **sizes)
    if device == "meta":
        model.to_empty(device="cpu")
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data.fill_(torch.nan)
        model.init_weights()
    for name, std in expected_stds(init, tied, scaled).items():
        layers = [layer for path, layer in model.named_modules() if path.endswith(name)]
        for layer in layers:
            assert layer.weight.std().item() == pytest.approx(std, rel=0.03), name
        assert layers
    assert (model.lm_head.weight is model.embed_tokens.weight) == tied
    assert torch.equal(
        model.norm.get_parameter("weight"), torch.full((256,), 2.0 if tied and init == "fan_in" else 1.0)
    )
    cos, sin = rope_cos_sin(12, 64, 10000.0, torch.device("cpu"))
    assert torch.equal(model.cos, cos)
    assert torch.equal(model.sin, sin)
    assert model.layers[2].input_layernorm.alpha.item() == 0.5
    if init == "fan_in" and (scaled or not tied):
        assert model.embed_tokens(some_tokens(20)).std().item() == pytest.approx(1.0, rel=0.03)


def test_weights_follow_from_the_seed_and_are_drawn_in_place() -> None:
    model, other = make("derf", seed=3), make("derf", seed=1)
    shake(other)
    before = [id(parameter) for parameter in other.parameters()]
    torch.manual_seed(3)
    other.init_weights()
    assert [id(parameter) for parameter in other.parameters()] == before
    torch.testing.assert_close(dict(other.named_parameters()), dict(model.named_parameters()), rtol=0, atol=0)


def test_norms_by_site() -> None:
    sites = {"attn": 0.8, "ffn": 0.2, "final": 0.1}
    norm_layer = partial(make_norm, "dyt", alpha0=0.6, alpha0_by_site=sites)
    model = build(norm_layer, **{**SIZES, "qk_norm": "same"})
    starts = {name: one.alpha.item() for name, one in model.named_modules() if is_norm(one)}
    block = {"input_layernorm": 0.8, "self_attn.q_norm": 0.6, "self_attn.k_norm": 0.6, "post_attention_layernorm": 0.2}
    expected = {f"layers.{i}.{name}": alpha for i in (0, 1) for name, alpha in block.items()} | {"norm": 0.1}
    assert starts == pytest.approx(expected)
    assert not [one for one in model.modules() if isinstance(one, nn.LayerNorm | nn.RMSNorm)]


def test_positions_and_the_embeddings_scale_stay_fp32_in_a_model_of_16_bits() -> None:
    """A scale of 64 has neighbours half a unit away in 16 bits, and would never move."""
    model = make(embed_scale=True).bfloat16()
    assert {model.cos.dtype, model.sin.dtype, model.embed_tokens.scale.dtype} == {torch.float32}
    assert model(some_tokens()).dtype == torch.bfloat16
