"""What `norm=` changes in a LLaMA besides its norms, as arXiv 2503.10622 has it."""

from typing import cast

import pytest

from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.models.build import build_model
from {{cookiecutter.package_name}}.models.llm.model import Llama

PAPER = [(1024, 1.0, 1.0), (2048, 1.0, 0.5), (4096, 0.8, 0.2), (5120, 0.6, 0.15), (8192, 0.2, 0.05)]


@pytest.mark.parametrize("norm", ["dyt", "derf"])
@pytest.mark.parametrize(("width", "attn", "other"), PAPER)
def test_alpha_starts_as_in_the_paper(norm: str, width: int, attn: float, other: float) -> None:
    cfg = compose(["task=llm", f"norm={norm}", f"model.embed_dim={width}"])
    starts = plain(cfg)["norm"]["alpha0_by_site"]
    assert starts == pytest.approx({"attn": attn, "ffn": other, "final": other})


def test_alpha_and_the_embedding_reach_the_model() -> None:
    cfg = compose(["task=llm", "norm=dyt", "norm.alpha0_by_site.attn=0.6", "norm.alpha0_by_site.final=0.3"])
    model = cast(Llama, build_model(cfg))
    assert model.layers[3].input_layernorm.alpha.item() == pytest.approx(0.6)
    assert model.layers[3].post_attention_layernorm.alpha.item() == pytest.approx(0.7)
    assert model.norm.alpha.item() == pytest.approx(0.3)
    assert model.embed_tokens.scale.item() == pytest.approx(128**0.5)
    assert not [name for name, _ in model.named_parameters() if "bias" in name]


@pytest.mark.parametrize(("width", "rate"), [(4096, 3e-4), (8192, 1.5e-4)])
@pytest.mark.parametrize("norm", ["rmsnorm", "dyt"])
def test_the_learning_rate_goes_down_to_the_papers(norm: str, width: int, rate: float) -> None:
    assert compose(["task=llm", f"norm={norm}", f"model.embed_dim={width}"]).optim.lr == pytest.approx(rate)


@pytest.mark.parametrize(
    ("preset", "vocabulary", "millions"),
    [("llm_124m", 50257, 123.6), ("llm_1b", 32000, 1100.0), ("llm_7b", 32000, 6738.4)],
)
def test_the_presets_have_the_size_they_are_named_after(preset: str, vocabulary: int, millions: float) -> None:
    """LLaMA 7B and TinyLlama 1.1B as published; the other by GPT-2's width, depth and vocabulary."""
    cfg = compose(["task=llm", "norm=rmsnorm", f"model={preset}", f"data.vocab_size={vocabulary}"])
    model = build_model(cfg, "meta")
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("norm", ["dyt", "rmsnorm"])
def test_the_papers_recipe_is_complete(norm: str) -> None:
    cfg = plain(compose(["experiment=llm_7b_pile", f"norm={norm}"]))
    assert (cfg["optim"]["lr"], cfg["optim"]["betas"], cfg["optim"]["weight_decay"]) == (3e-4, [0.9, 0.95], 0.1)
    assert cfg["optim"]["clip_norm"] == 1
    assert (cfg["schedule"]["warmup_steps"], cfg["schedule"]["final_factor"]) == (2000, 0.1)
    tokens = cfg["trainer"]["max_steps"] * cfg["data"]["total_batch_size"] * cfg["data"]["context"]
    assert tokens == pytest.approx(200e9, rel=1e-4)
    assert cfg["data"]["context"] == 4096
    if norm == "dyt":
        assert cfg["norm"]["alpha0_by_site"] == pytest.approx({"attn": 0.8, "ffn": 0.2, "final": 0.2})
        assert cfg["model"]["embed_scale"]
