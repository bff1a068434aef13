"""The sizes of the DiT paper (arXiv 2212.09748), and the recipes of those of DyT and Derf."""

import pytest

from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.models.build import build_model

LATENTS = ["data=latents", "data.img_size=32", "data.in_chans=4", "data.num_classes=1000"]
SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}  # width, depth, heads
MILLIONS = {"s": 33, "b": 130, "l": 458, "xl": 675}  # of the paper, at patch 2
FREQUENCIES = 256


def counted(width: int, depth: int, patch: int, classes: int = 1000, channels: int = 4, outputs: int = 2) -> int:
    patches = channels * patch**2
    embeddings = (patches + 1) * width + (FREQUENCIES + 1 + width + 1) * width + (classes + 1) * width
    attention, mlp, modulation = 4 * width**2 + 4 * width, 8 * width**2 + 5 * width, 6 * width**2 + 6 * width
    head = 2 * width**2 + 2 * width + (width + 1) * patches * outputs
    return embeddings + depth * (attention + mlp + modulation) + head


@pytest.mark.parametrize("patch", [2, 4, 8])
@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_of_the_paper(size: str, patch: int) -> None:
    argv = ["task=dit", "norm=ln", f"model=dit_{size}", "objective=ddpm", f"model.patch_size={patch}", *LATENTS]
    cfg = compose(argv)
    width, depth, heads = SIZES[size]
    assert (cfg.model.embed_dim, cfg.model.depth, cfg.model.num_heads) == (width, depth, heads)
    assert (cfg.model.outputs, cfg.model.init) == (2, "dit")
    net = build_model(cfg, "meta")
    assert sum(parameter.numel() for parameter in net.parameters()) == counted(width, depth, patch)
    if patch == 2:
        positions = (32 // patch) ** 2 * width  # a parameter in the reference, though never trained; a buffer here
        assert (counted(width, depth, patch) + positions) / 1e6 == pytest.approx(MILLIONS[size], abs=0.6)
        if size == "xl":
            assert counted(width, depth, patch) + positions == 675_129_632


@pytest.mark.parametrize("norm", ["ln", "dyt", "derf"])
@pytest.mark.parametrize(("size", "model", "patch"), [("b4", "dit_b", 4), ("l4", "dit_l", 4), ("xl2", "dit_xl", 2)])
def test_the_papers_recipes_are_complete(size: str, model: str, patch: int, norm: str) -> None:
    cfg = plain(compose([f"experiment=dit_{size}_imagenet256", f"norm={norm}", *LATENTS]))
    picked = {"task": "dit", "norm": norm, "model": model, "data": "latents", "objective": "ddpm"}
    assert picked.items() <= cfg["defaults"].items()
    width, depth, _ = SIZES[model.removeprefix("dit_")]
    assert (cfg["model"]["embed_dim"], cfg["model"]["depth"], cfg["model"]["patch_size"]) == (width, depth, patch)
    assert (cfg["data"]["total_batch_size"], cfg["data"]["hflip"], cfg["task"]["label_dropout"]) == (256, 0.5, 0.1)
    optim = {"lr": 4e-4, "betas": [0.9, 0.999], "weight_decay": 0, "clip_norm": 0, "alpha_lr_factor": 1}
    assert cfg["optim"] == optim
    schedule = cfg["schedule"]
    assert (schedule["name"], schedule["warmup_share"], schedule["warmup_steps"]) == ("constant", 0, 0)
    assert cfg["ema"] == {"decay": 0.9999}
    trainer = {"max_steps": 400_000, "max_epochs": -1, "precision": "bf16-mixed"}
    assert trainer.items() <= cfg["trainer"].items()
    measured = {"n": 50_000, "steps": 250, "features": "inception"}
    assert measured.items() <= cfg["task"]["quality"].items()


@pytest.mark.parametrize("norm", ["dyt", "derf"])
def test_alpha_starts_by_width(norm: str) -> None:
    """At 1 where that was found, at the papers' 0.5 in their sizes."""
    for model, alpha0 in {"digits": 1.0, "b": 0.5, "l": 0.5, "xl": 0.5}.items():
        cfg = plain(compose(["task=dit", f"norm={norm}", f"model=dit_{model}", *LATENTS]))
        assert cfg["norm"]["alpha0"] == alpha0
    assert 0.5 < compose(["task=dit", f"norm={norm}", "model=dit_s", *LATENTS]).norm.alpha0 < 1


@pytest.mark.parametrize(
    ("norm", "size", "alpha0", "zero_gates", "zero_head"),
    [
        ("ln", "b4", None, True, True),
        ("ln", "l4", None, True, True),
        ("ln", "xl2", None, True, True),
        ("dyt", "b4", 0.5, False, False),
        ("dyt", "l4", 0.5, False, False),
        ("dyt", "xl2", 0.5, False, False),
        ("derf", "b4", 0.5, True, False),
        ("derf", "l4", 0.5, False, False),
        ("derf", "xl2", 1.0, False, False),
    ],
)
def test_what_a_norm_changes(norm: str, size: str, alpha0: float | None, zero_gates: bool, zero_head: bool) -> None:
    cfg = plain(compose([f"experiment=dit_{size}_imagenet256", f"norm={norm}", *LATENTS]))
    model = {"init": "dit", "zero_gates": zero_gates, "zero_head": zero_head}
    assert model.items() <= cfg["model"].items()
    assert cfg["norm"].get("alpha0") == alpha0
    if alpha0:
        assert cfg["norm"]["alpha0_by_site"] == dict.fromkeys(("attn", "ffn", "final"), alpha0)
