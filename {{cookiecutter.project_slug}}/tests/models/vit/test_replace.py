"""Norms replaced in a model of timm."""

import timm
import torch

from {{cookiecutter.package_name}}.norms import replace_norms

from ...norms.common import shake_norms


def test_layernorm_computes_what_timms_does() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2).eval()
    shake_norms(model)
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    assert replace_norms(model, "ln") == [
        "blocks.0.norm1",
        "blocks.0.norm2",
        "blocks.1.norm1",
        "blocks.1.norm2",
        "norm",
    ]
    torch.testing.assert_close(model(x), expected)
