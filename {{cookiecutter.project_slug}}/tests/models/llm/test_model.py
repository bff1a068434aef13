"""The LLaMA itself: sizes, scales, positions, causality and loss."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from {{cookiecutter.package_name}}.models.layers import apply_rotary_emb, rope_cos_sin
from {{cookiecutter.package_name}}.models.llm.model import SwiGLU, build
from {{cookiecutter.package_name}}.norms import is_norm, make_norm, names

from .models import SIZES, make, shake, some_tokens


@pytest.mark.parametrize(
    ("norm", "of_a_norm"), [("rmsnorm", 32), ("ln", 32), ("bn", 32), ("dyt", 33), ("derf", 34), ("none", 0)]
)
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_by_hand(norm: str, of_a_norm: int, tied: bool) -> None:
    count = sum(parameter.numel() for parameter in make(norm, tied=tied).parameters())
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32  # q, k and v of two heads of 8, out
    feed_forward = 3 * 32 * 48
    embeddings = (1 if tied else 2) * 50 * 32
    assert count == embeddings + 2 * (attention + feed_forward + 2 * of_a_norm) + of_a_norm


@pytest.mark.parametrize("norm", names())
@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "embed_scale": True}])
def test_later_tokens_do_not_matter(norm: str, options: dict[str, Any]) -> None:
    net = make(norm, **options).eval()
    tokens = some_tokens()
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 50
    before, after = net(tokens), net(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    assert ((before - after)[:, 7:].abs().amax(-1) > 1e-4).all(), "and the later ones see it"


@pytest.mark.parametrize("chunk", [0, 5, 36])
def test_loss_by_float64(chunk: int) -> None:
    net = make(loss_chunk=chunk)
    targets = some_tokens(seed=1)
    targets[0, 3:9] = -100
    logits = net(some_tokens()).double()
    log_p = logits.log_softmax(-1)
    kept = targets >= 0
    expected = -log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0][kept].mean()
    torch.testing.assert_close(net(some_tokens(), targets).double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(F.cross_entropy(logits.flatten(0, 1), targets.flatten()), expected)


@pytest.mark.parametrize(
    "changes", [{"loss_chunk": 5}, {"checkpointing": True}, {"loss_chunk": 7, "checkpointing": True}]
)
@pytest.mark.parametrize("norm", ["dyt", "bn"])
def test_less_memory_the_same_gradients(changes: dict[str, Any], norm: str) -> None:
    targets = some_tokens(seed=1)
    targets[1, 4:] = -100
    whole, sparing = make(norm).double(), make(norm, **changes).double()
    losses = [net(some_tokens(), targets) for net in (whole, sparing)]
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
    net = make("dyt", device=device, init=init, tied=tied, embed_scale=scaled, head_gain=2.0, **sizes)
    if device == "meta":
        net.to_empty(device="cpu")
        for tensor in [*net.parameters(), *net.buffers()]:
            tensor.data.fill_(torch.nan)
        net.init_weights()
    for name, std in expected_stds(init, tied, scaled).items():
        layers = [layer for path, layer in net.named_modules() if path.endswith(name)]
        for layer in layers:
            assert layer.weight.std().item() == pytest.approx(std, rel=0.03), name
        assert layers
    assert (net.lm_head.weight is net.embed_tokens.weight) == tied
    assert torch.equal(net.norm.get_parameter("weight"), torch.full((256,), 2.0 if tied and init == "fan_in" else 1.0))
    cos, sin = rope_cos_sin(12, 64, 10000.0, torch.device("cpu"))
    assert torch.equal(net.cos, cos)
    assert torch.equal(net.sin, sin)
    assert net.layers[2].input_layernorm.alpha.item() == 0.5
    if init == "fan_in" and (scaled or not tied):
        assert net.embed_tokens(some_tokens(20)).std().item() == pytest.approx(1.0, rel=0.03)


def test_weights_follow_from_the_seed_and_are_drawn_in_place() -> None:
    nets = [make("derf"), make("derf"), make("derf", seed=1)]
    states = [{name: one.clone() for name, one in net.named_parameters()} for net in nets]
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    assert not torch.equal(states[2]["lm_head.weight"], states[0]["lm_head.weight"])
    shake(nets[2])
    before = [id(parameter) for parameter in nets[2].parameters()]
    for net in nets[1:]:
        torch.manual_seed(7)
        net.init_weights()
    assert [id(parameter) for parameter in nets[2].parameters()] == before
    torch.testing.assert_close(dict(nets[2].named_parameters()), dict(nets[1].named_parameters()), rtol=0, atol=0)


def test_attention_by_the_formula() -> None:
    """One head of keys and values serves two of queries; the norm of each head comes before the rotation."""
    net = make("ln", qk_norm=True).double()
    attn = net.layers[1].self_attn
    x = torch.randn(2, 12, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rope = net.cos.double(), net.sin.double()
    q, k = (
        norm(layer(x).view(2, 12, -1, 8)) for layer, norm in ((attn.q_proj, attn.q_norm), (attn.k_proj, attn.k_norm))
    )
    v = attn.v_proj(x).view(2, 12, 2, 8)
    heads = []
    for head in range(4):
        queries, keys = apply_rotary_emb(q[:, :, head], rope), apply_rotary_emb(k[:, :, head // 2], rope)
        scores = (queries @ keys.mT / 8**0.5).masked_fill(torch.ones(12, 12).triu(1).bool(), -torch.inf)
        heads.append(scores.softmax(-1) @ v[:, :, head // 2])
    expected = attn.o_proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attn(x, (net.cos.double(), net.sin.double())), expected)


def test_norms_by_site() -> None:
    sites = {"attn": 0.8, "ffn": 0.2, "final": 0.1}
    norm_layer = partial(make_norm, "dyt", alpha0=0.6, alpha0_by_site=sites)
    net = build(norm_layer, **{**SIZES, "qk_norm": True})
    starts = {name: one.alpha.item() for name, one in net.named_modules() if is_norm(one)}
    block = {"input_layernorm": 0.8, "self_attn.q_norm": 0.6, "self_attn.k_norm": 0.6, "post_attention_layernorm": 0.2}
    expected = {f"layers.{i}.{name}": alpha for i in (0, 1) for name, alpha in block.items()} | {"norm": 0.1}
    assert starts == pytest.approx(expected)
    assert not [one for one in net.modules() if isinstance(one, nn.LayerNorm | nn.RMSNorm)]


def test_positions_and_the_embeddings_scale_stay_fp32_in_a_net_of_16_bits() -> None:
    """A scale of 64 has neighbours half a unit away in 16 bits, and would never move."""
    net = make(embed_scale=True).bfloat16()
    assert {net.cos.dtype, net.sin.dtype, net.embed_tokens.scale.dtype} == {torch.float32}
    assert net(some_tokens()).dtype == torch.bfloat16


def test_swiglu_by_the_formula() -> None:
    layer = SwiGLU(6, 10).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gate, up, down = (one.weight for one in (layer.gate_proj, layer.up_proj, layer.down_proj))
    expected = ((x @ gate.T) / (1 + torch.exp(-x @ gate.T)) * (x @ up.T)) @ down.T
    torch.testing.assert_close(layer(x), expected)
