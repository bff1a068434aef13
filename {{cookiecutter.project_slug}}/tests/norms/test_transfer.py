"""Weights of one model for another."""

from typing import Any

import pytest
import torch
from torch import nn

from {{cookiecutter.package_name}}.norms import make_norm
from {{cookiecutter.package_name}}.norms.transfer import copy_

from .common import DIM


@pytest.mark.parametrize(
    ("name", "options"),
    [("rmsnorm", {"scale": "one_plus_weight"}), ("dyt", {"alpha_per": "channel"}), ("dyt", {"running_scale": True})],
)
def test_parameters_of_another_meaning_are_not_copied(name: str, options: dict[str, Any]) -> None:
    old = nn.Sequential(nn.Linear(DIM, DIM), make_norm(name, DIM))
    new = nn.Sequential(nn.Linear(DIM, DIM), make_norm(name, DIM, **options))
    start = new[1].state_dict()
    assert copy_(new, old, []) == (["1"], [])
    assert torch.equal(new.get_parameter("0.weight"), old.get_parameter("0.weight"))
    torch.testing.assert_close(new[1].state_dict(), start)
    assert copy_(nn.Sequential(nn.Linear(DIM, DIM), make_norm(name, DIM)), old, []) == ([], [])
