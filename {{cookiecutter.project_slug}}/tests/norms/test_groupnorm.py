"""GroupNorm, over tokens and over maps."""

import pytest
import torch
import torch.nn.functional as F

from {{cookiecutter.package_name}}.norms import make_norm

from .common import DIM, build, randomize_, tokens


@pytest.mark.parametrize(("groups", "used"), [(1, 1), (3, 1), (6, 2), (4, 4), (32, 8)])
def test_gn_by_the_formula(groups: int, used: int) -> None:
    """In float64, with as many groups as divide the channels."""
    norm, x = randomize_(build("gn", groups=groups, eps=0.1)), tokens(2, 3, 5, DIM)
    assert norm.num_groups == used
    wide = x.double().view(2, 15, used, DIM // used)
    centred = wide - wide.mean((1, 3), keepdim=True)
    y = (centred / (centred.square().mean((1, 3), keepdim=True) + 0.1).sqrt()).view(2, 3, 5, DIM)
    torch.testing.assert_close(norm(x).double(), y * norm.weight + norm.bias, rtol=1e-5, atol=1e-5)
    first = x.movedim(-1, 1)
    maps = randomize_(make_norm("gn", DIM, channels_first=True, groups=groups, eps=0.1))
    expected = F.group_norm(first, used, norm.weight, norm.bias, 0.1)
    torch.testing.assert_close(maps(first), expected)
