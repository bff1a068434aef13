"""Parameter groups and learning-rate schedules."""

import math

import pytest
from torch import Tensor, nn

from {{cookiecutter.package_name}}.models.optim import SCHEDULES, lr_factor, parameter_groups
from {{cookiecutter.package_name}}.norms import PointwiseNorm, make_norm


def test_only_matrices_decay_and_alpha_has_its_own_rate() -> None:
    net = nn.Sequential(nn.Linear(4, 4), make_norm("derf", 4), nn.Conv2d(1, 1, 3), nn.Embedding(3, 4))
    groups = {group["name"]: group for group in parameter_groups(net, lr=0.1, weight_decay=0.05, alpha_lr_factor=10.0)}

    shapes = {name: sorted(tuple(p.shape) for p in group["params"]) for name, group in groups.items()}
    assert shapes == {
        "weights": [(1, 1, 3, 3), (3, 4), (4, 4)],
        "vectors": [(1,), (4,), (4,), (4,)],
        "alpha": [(1,), (1,)],
    }
    assert [groups[name]["weight_decay"] for name in shapes] == [0.05, 0.0, 0.0]
    assert [groups[name]["lr"] for name in shapes] == pytest.approx([0.1, 0.1, 1.0])


class Own(PointwiseNorm):
    def __init__(self, dim: int) -> None:
        super().__init__(dim, steepness=1.0)

    def curve(self, x: Tensor) -> Tensor:
        return self.steepness * x


def test_any_scalar_of_a_point_wise_norm_is_of_the_alpha_group_and_no_other_parameter() -> None:
    net = nn.Sequential(Own(4), nn.Module())
    net[1].alpha = nn.Parameter(net[0].weight.detach().clone())
    groups = {group["name"]: group["params"] for group in parameter_groups(net, 0.1, 0.05)}
    assert [p is net[0].steepness for p in groups["alpha"]] == [True]
    assert len(groups["vectors"]) == 3


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    net = nn.Linear(4, 4, bias=False)
    assert [group["name"] for group in parameter_groups(net, 0.1, 0.0)] == ["weights"]
    assert parameter_groups(net.requires_grad_(False), 0.1, 0.0) == []


def test_cosine_by_its_formula() -> None:
    factor = lr_factor(110, "cosine", warmup_share=0.0, warmup_steps=10, final_factor=0.1)
    assert factor(10) == 1.0
    assert factor(60) == pytest.approx(0.55)
    assert factor(35) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert factor(110) == pytest.approx(0.1)
    assert factor(500) == pytest.approx(0.1), "a run that goes on stays at the end value"


def test_wsd_is_flat_and_then_falls() -> None:
    factor = lr_factor(100, "wsd", warmup_share=0.0, warmup_steps=0, final_factor=0.0)
    assert [factor(step) for step in (0, 50, 80, 90, 100)] == pytest.approx([1, 1, 1, 0.5, 0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_rises_from_above_zero_to_one(name: str) -> None:
    factor = lr_factor(100, name, warmup_share=0.09, warmup_steps=0, final_factor=0.0)
    rise = [factor(step) for step in range(10)]
    assert rise == pytest.approx([0.1 * n for n in range(1, 11)])


def test_a_warm_up_longer_than_training_is_refused() -> None:
    with pytest.raises(ValueError, match="a warm-up of 100 steps leaves nothing of a training of 100"):
        lr_factor(100, "cosine", warmup_share=0.0, warmup_steps=100, final_factor=0.0)
