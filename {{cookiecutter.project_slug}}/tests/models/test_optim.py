"""Parameter groups and learning-rate schedules."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.models.optim import SCHEDULES, lr_factor, make_optimizer, parameter_groups
from {{cookiecutter.package_name}}.norms import PointwiseNorm, make_norm


def test_only_matrices_decay_and_alpha_has_its_own_rate() -> None:
    net = nn.Sequential(nn.Linear(4, 4), make_norm("derf", 4), nn.Conv2d(1, 1, 3), nn.Embedding(3, 4))
    net.blocks = nn.Sequential(nn.Linear(5, 5))
    groups = {group["name"]: group for group in parameter_groups(net, lr=0.1, weight_decay=0.05, alpha_lr_factor=10.0)}

    shapes = {name: sorted(tuple(p.shape) for p in group["params"]) for name, group in groups.items()}
    assert shapes == {
        "hidden": [(5, 5)],
        "weights": [(1, 1, 3, 3), (3, 4), (4, 4)],
        "vectors": [(1,), (4,), (4,), (4,), (5,)],
        "alpha": [(1,), (1,)],
    }
    assert [groups[name]["weight_decay"] for name in shapes] == [0.05, 0.05, 0.0, 0.0]
    assert [groups[name]["lr"] for name in shapes] == pytest.approx([0.1, 0.1, 0.1, 1.0])


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


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(4, 4), make_norm("dyt", 4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(x))
        return y


def trained(net: Net, optimizer: torch.optim.Optimizer, steps: int) -> dict[str, Tensor]:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def made(option: str, net: Net) -> torch.optim.Optimizer:
    return make_optimizer(net, plain(compose([f"optim={option}"]).optim), fused=False)


def test_muon_moves_hidden_matrices_as_torchs_does_and_the_rest_as_adamw() -> None:
    torch.manual_seed(0)
    net = Net()
    one, muon, adamw = copy.deepcopy(net), copy.deepcopy(net), copy.deepcopy(net)
    ours = trained(one, made("muon", one), 1)
    hidden = [parameter for parameter in muon.blocks.parameters() if parameter.ndim == 2]
    lr, decay = (made("muon", muon).param_groups[0][key] for key in ("lr", "weight_decay"))
    alone = torch.optim.Muon(hidden, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    theirs = trained(muon, alone, 1)
    rest = trained(adamw, made("adamw", adamw), 1)
    for name, value in ours.items():
        is_hidden = name in ("blocks.0.weight", "blocks.2.weight")
        torch.testing.assert_close(value, (theirs if is_hidden else rest)[name])
        assert not torch.equal(value, dict(net.named_parameters())[name])


@pytest.mark.parametrize("option", ["adamw", "muon", "sgd"])
def test_an_optimiser_continues_from_its_state(option: str) -> None:
    torch.manual_seed(0)
    net = Net()
    other = copy.deepcopy(net)
    optimizer = made(option, net)
    trained(net, optimizer, 2)
    other.load_state_dict(net.state_dict())
    again = made(option, other)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    one, two = trained(net, optimizer, 2), trained(other, again, 2)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_muon_needs_hidden_matrices() -> None:
    with pytest.raises(ValueError, match="blocks"):
        made("muon", nn.Linear(4, 4))  # type: ignore[arg-type]
