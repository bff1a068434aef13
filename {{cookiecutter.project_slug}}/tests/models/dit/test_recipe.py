"""The sizes of the DiT paper (arXiv 2212.09748), and the recipes of those of DyT and Derf."""

import pytest
import torch

from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.models.build import build_model
from {{cookiecutter.package_name}}.models.dit import FAMILY
from {{cookiecutter.package_name}}.train import build_module

LATENTS = ["data=latents", "data.img_size=32", "data.in_chans=4", "data.num_classes=1000"]
SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}  # width, depth, heads
MILLIONS = {"s": 33, "b": 130, "l": 458, "xl": 675}  # of the paper, at patch 2


@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_of_the_paper(size: str) -> None:
    cfg = compose(["task=dit", "norm=ln", f"model=dit_{size}", "objective=ddpm", "model.patch_size=2", *LATENTS])
    width = cfg.model.embed_dim
    assert (width, cfg.model.depth, cfg.model.num_heads) == SIZES[size]
    assert (cfg.model.outputs, cfg.model.init) == (2, "dit")
    positions = 16**2 * width  # a parameter in the reference, though never trained; a buffer here
    parameters = sum(parameter.numel() for parameter in build_model(cfg, "meta").parameters()) + positions
    assert parameters / 1e6 == pytest.approx(MILLIONS[size], abs=0.6)
    assert size != "xl" or parameters == 675_129_632


@pytest.mark.parametrize(
    ("norm", "size", "patch", "alpha0", "zero_gates", "zero_head"),
    [
        ("ln", "b", 4, None, True, True),
        ("ln", "xl", 2, None, True, True),
        ("dyt", "b", 4, 0.5, False, False),
        ("dyt", "l", 4, 0.5, False, False),
        ("dyt", "xl", 2, 0.5, False, False),
        ("derf", "b", 4, 0.5, True, False),
        ("derf", "l", 4, 0.5, False, False),
        ("derf", "xl", 2, 1.0, False, False),
    ],
)
def test_the_papers_recipes(
    norm: str, size: str, patch: int, alpha0: float | None, zero_gates: bool, zero_head: bool
) -> None:
    cfg = plain(compose([f"experiment=dit_{size}{patch}_imagenet256", f"norm={norm}", *LATENTS]))
    model = {"patch_size": patch, "init": "dit", "zero_gates": zero_gates, "zero_head": zero_head}
    assert model.items() <= cfg["model"].items()
    assert cfg["model"]["depth"] == SIZES[size][1]
    assert cfg["norm"].get("alpha0") == alpha0
    if alpha0:
        assert cfg["norm"]["alpha0_by_site"] == dict.fromkeys(("attn", "ffn", "final"), alpha0)
    assert (cfg["data"]["total_batch_size"], cfg["data"]["hflip"], cfg["task"]["label_dropout"]) == (256, 0.5, 0.1)
    optim = {"lr": 4e-4, "betas": [0.9, 0.999], "weight_decay": 0, "clip_norm": 0, "alpha_lr_factor": 1}
    assert cfg["optim"].items() >= optim.items()
    assert (cfg["ema"], cfg["schedule"]["name"]) == ({"decay": 0.9999}, "constant")
    assert (cfg["trainer"]["max_steps"], cfg["trainer"]["precision"]) == (400_000, "bf16-mixed")
    assert {"n": 50_000, "steps": 250, "features": "inception"}.items() <= cfg["task"]["quality"].items()


def test_a_model_of_latents_is_built_without_data() -> None:
    """As benchmark.py does."""
    module = build_module(compose(["task=dit", "model=dit_s", "model.depth=1", *FAMILY.example_data]))
    assert module.model_inputs((torch.zeros(1, 4, 32, 32), torch.zeros(1, dtype=torch.long)))[0].shape == (1, 4, 32, 32)
