"""Norms over channels-first maps."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from {{cookiecutter.package_name}}.norms import is_norm, make_norm, names

from .common import DIM, build, randomize_, tokens

each_norm = pytest.mark.parametrize("name", names())


def maps(*shape: int) -> torch.Tensor:
    return tokens(2, *shape, DIM).movedim(-1, 1).contiguous()


def over_maps(name: str, **options: Any) -> Any:
    return randomize_(make_norm(name, DIM, channels_first=True, **options))


@each_norm
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_norm_of_tokens_with_channels_first(name: str, layout: torch.memory_format) -> None:
    norm, x = over_maps(name), maps(3, 5).to(memory_format=layout)
    expected = randomize_(build(name))(x.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(norm(x), expected)
    assert is_norm(norm)
    assert norm.normalizes == build(name).normalizes
    torch.compiler.reset()  # all classes share a forward, which has a limit of compilations
    compiled = torch.compile(copy.deepcopy(norm), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), norm(x))


@pytest.mark.parametrize("name", [name for name in names() if name != "bn"])
def test_pooled_maps_and_parameters_as_of_tokens(name: str) -> None:
    """Names of parameters stay, so that the weights of timm's models fit."""
    norm = over_maps(name)
    assert norm.state_dict().keys() == build(name).state_dict().keys()
    torch.testing.assert_close(norm(maps()), norm(maps()[..., None, None]).flatten(1))


def test_bn_is_torchs() -> None:
    """With fp32 statistics whatever the model is cast to, and found by SyncBatchNorm."""
    norm, torchs = over_maps("bn", momentum=0.3), randomize_(nn.BatchNorm2d(DIM, momentum=0.3))
    assert norm.state_dict().keys() == torchs.state_dict().keys()
    assert torch.equal(norm(maps(3, 5)), torchs(maps(3, 5)))
    assert torch.equal(norm.eval()(maps(3, 5)), torchs.eval()(maps(3, 5)))
    model = nn.Sequential(over_maps("bn", bias=False)).to(torch.bfloat16)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32, torch.int64}
    assert model(maps(3, 5).bfloat16()).dtype == torch.bfloat16
    assert is_norm(nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(norm))[0])
