"""Norms replaced in models of torch."""

from typing import Any

import pytest
import torch
from torch import nn

from {{cookiecutter.package_name}}.norms import DyT, replace_norms


def test_the_rest_of_a_norm_is_kept() -> None:
    model = nn.Sequential(
        nn.LayerNorm(6, dtype=torch.float64), nn.RMSNorm(6), nn.LayerNorm(6, elementwise_affine=False)
    )
    shaken = torch.rand(6, dtype=torch.float64)
    with torch.no_grad():
        model[0].weight.copy_(shaken)
        model[0].bias.copy_(-shaken)
    model[0].weight.requires_grad_(False)
    model.eval()
    replace_norms(model, "dyt", alpha0=0.7)
    first, second, third = model
    assert all(isinstance(norm, DyT) and not norm.training for norm in model)
    assert (first.weight.dtype, first.alpha.dtype) == (torch.float64, torch.float32)
    assert not first.weight.requires_grad
    torch.testing.assert_close(first.weight.data, shaken)
    torch.testing.assert_close(first.bias.data, -shaken)
    torch.testing.assert_close(first.alpha.data, torch.tensor([0.7]))
    assert [name for name, _ in second.named_parameters()] == ["alpha", "weight"]
    assert [name for name, _ in third.named_parameters()] == ["alpha"]


def test_a_norm_with_two_places_stays_one() -> None:
    shared = nn.LayerNorm(4)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    assert replace_norms(model, "dyt") == ["a", "b.0"]
    assert model["a"] is model.get_submodule("b.0")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (nn.Linear(3, 3), {}),
        (nn.Sequential(nn.LayerNorm([3, 4])), {}),
        (nn.Sequential(nn.LayerNorm(4)), {"which": "nothing"}),
        (nn.Sequential(nn.LayerNorm(4)), {"calibrate": (torch.ones(2, 4),), "norm": "rmsnorm"}),
    ],
    ids=["no norm", "two dimensions", "no such name", "not point-wise"],
)
def test_refusals_leave_the_model_as_it_is(model: nn.Module, options: dict[str, Any]) -> None:
    before = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=r"\S"):
        replace_norms(model, **{"norm": "dyt", **options})
    assert [type(module) for module in model.modules()] == before


@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_encoder_computes_the_same_in_evaluation(norm_first: bool) -> None:
    """torch has a fast path there that computes LayerNorms itself."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    replace_norms(model, "dyt")
    x = torch.randn(2, 5, 8)
    expected = model.train()(x)
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(x), expected)
