"""What the monitor says about the norms, against the same numbers computed here."""

from typing import Any

import pytest
import torch
from torch import nn

from {{cookiecutter.package_name}}.callbacks.norm_monitor import (
    correlation,
    gradient_values,
    input_sums,
    input_values,
    named_norms,
    scalar_values,
)
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.models.base import BaseModule
from {{cookiecutter.package_name}}.norms import SITES, make_norm
from {{cookiecutter.package_name}}.train import build_data, build_module

from ..conftest import each_family
from ..runs import Start, Tiny, load, rows, scalars
from ..test_resume import resume


class Late(nn.Module):
    """Defines the last norm first, so that only execution tells their order."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.last = make_norm(norm, 8)
        self.first = make_norm(norm, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(self.first(3 * x)))


def values_of(model: nn.Module, *inputs: torch.Tensor) -> dict[str, float]:
    sums = input_sums(model, inputs)
    layers = [name for name in sums if name in named_norms(model)]
    return input_values(layers, {name: row.tolist() for name, row in sums.items()})


def test_statistics_by_hand_and_in_order_of_execution() -> None:
    model = Late("dyt").train()
    x = torch.randn(5, 6, 8) + 1
    values = values_of(model, x)
    assert list(values)[:2] == ["input_std/00_first", "inverse_std/00_first"]
    assert values["input_std/00_first"] == pytest.approx((3 * x).double().std(correction=0).item())
    assert values["inverse_std/00_first"] == pytest.approx(1 / (3 * x).double().std(correction=0).item())
    assert values["saturated/00_first"] == pytest.approx(((3 * x * 0.5).abs() > 2).float().mean().item())
    second = torch.tanh(0.5 * 3 * x)  # without dropout: statistics are taken in evaluation mode
    assert values["input_std/01_last"] == pytest.approx(second.double().std(correction=0).item(), rel=1e-5)
    assert model.training


def test_shift_counts_towards_saturation() -> None:
    model = make_norm("derf", 4)
    assert isinstance(model.shift, nn.Parameter)
    nn.init.constant_(model.shift, 1.5)
    x = torch.tensor([[0.0, 1.1, -1.1, -7.1]])
    assert values_of(nn.Sequential(model), x)["saturated/00_0"] == 0.5  # 1.5 + 0.55 and 1.5 - 3.55


def test_alphas_of_channels_by_their_mean_and_ends() -> None:
    """Over maps, whose channels are not last; and nothing without alpha."""
    norm = make_norm("dyt", 3, channels_first=True, alpha_per="channel")
    norm.alpha.data = torch.tensor([0.1, 1.0, 4.0])
    x = torch.randn(2, 3, 4, 5)
    values = values_of(nn.Sequential(norm), x)
    beyond = (x * torch.tensor([0.1, 1.0, 4.0])[:, None, None]).abs() > 2
    assert values["saturated/00_0"] == pytest.approx(beyond.float().mean().item())
    assert values["input_std/00_0"] == pytest.approx(x.double().std(correction=0).item(), rel=1e-6)
    assert scalar_values(nn.Sequential(norm), ["0"]) == pytest.approx(
        {"alpha/00_0": 1.7, "alpha_min/00_0": 0.1, "alpha_max/00_0": 4.0}
    )
    norm(x).sum().backward()
    expected = {"alpha_grad/00_0": norm.alpha.grad.norm().item()}
    assert gradient_values(nn.Sequential(norm), ["0"]) == pytest.approx(expected)
    without = nn.Sequential(make_norm("dyt", 3, alpha_per="none"))
    assert scalar_values(without, ["0"]) == gradient_values(without, ["0"]) == {}
    assert "saturated/00_0" not in values_of(without, torch.randn(2, 3))


def model_and_inputs(tiny: Tiny, *argv: str) -> tuple[nn.Module, list[torch.Tensor]]:
    cfg = compose([*tiny.argv, *argv])
    data = build_data(cfg)
    module = build_module(cfg)
    data.prepare_data()
    return module.model, [tensor[:4] for tensor in module.model_inputs(next(iter(data.train_dataloader())))]


def test_looking_changes_nothing(tiny: Tiny) -> None:
    model, inputs = model_and_inputs(tiny, "norm=bn", *tiny.random)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    input_sums(model, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), (
        "running statistics too"
    )
    assert not any(module._forward_hooks for module in model.modules())


def test_correlation_is_pearsons_of_the_logarithms(start: Start, tiny: Tiny) -> None:
    run, _ = start("optim.lr=1.0e-2", *(f"norm.alpha0_by_site.{site}=0.5" for site in SITES))
    found = scalars(run)
    layers = [f"{number:02}_{name}" for number, name in enumerate(tiny.norms)]
    ends = [[found[f"{kind}/{layer}"][-1][1] for layer in layers] for kind in ("alpha", "inverse_std")]
    logs = torch.tensor(ends, dtype=torch.float64).log()
    logged = found["alpha_vs_inverse_std/correlation"]
    assert [step for step, _ in logged] == [4, 8, 12], "at the start all alphas are the same"
    assert logged[-1][1] == pytest.approx(torch.corrcoef(logs)[0, 1].item(), rel=1e-4)
    assert correlation({"a": -0.5, "b": 1.0, "c": 2.0}, {"a": 1.0, "b": 2.0, "c": 4.0}) == pytest.approx(1.0)
    for alpha in (0.0, float("nan"), 0.5):  # no logarithm, diverged, constant
        assert correlation({"a": 0.5, "b": alpha}, {"a": 1.0, "b": 2.0}) is None


@each_family
def test_gradients_of_alpha_are_those_of_the_step(start: Start, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both batches that it accumulates over, before they are clipped."""
    seen = {}
    clip = BaseModule.configure_gradient_clipping

    def watch(module: BaseModule, *args: Any, **kwargs: Any) -> None:
        alpha = module.model.get_submodule(tiny.norms[1]).alpha
        seen[module.trainer.global_step] = alpha.grad.norm().item()
        clip(module, *args, **kwargs)

    monkeypatch.setattr(BaseModule, "configure_gradient_clipping", watch)
    argv = ["data.batch_size=16", "trainer.limit_train_batches=12", "trainer.max_epochs=1"]
    run, _ = start(*argv, "optim.clip_norm=0.01", "ema.decay=0.9")
    logged = scalars(run)[f"alpha_grad/01_{tiny.norms[1]}"]
    assert [step for step, _ in logged] == [0, 4]
    assert [value for _, value in logged] == pytest.approx([seen[0], seen[4]])


@each_family
def test_what_leaves_the_last_block_is_logged_once(tiny: Tiny) -> None:
    """It is what the last norm is fed, unless that comes after the mean over tokens or there is none."""
    model, inputs = model_and_inputs(tiny, "norm=dyt")
    seen: list[torch.Tensor] = []
    model.get_submodule(tiny.norms[2]).register_forward_hook(lambda module, args, output: seen.append(args[0]))
    last_block = list(model.get_submodule("blocks").children())[-1]
    last_block.register_forward_hook(lambda module, args, output: seen.append(output))
    values = values_of(model, *inputs)
    first, last = (tensor.double().std(correction=0).item() for tensor in seen)
    assert values[f"input_std/02_{tiny.norms[2]}"] == pytest.approx(first, rel=1e-5)
    candidates = [tag for tag in values if tag.startswith("output_std/") or tag.endswith(f"_{tiny.norms[-1]}")]
    candidates = [tag for tag in candidates if tag.startswith(("output_std/", "input_std/"))]
    assert sum(values[tag] == pytest.approx(last, rel=1e-5) for tag in candidates) == 1


def test_a_warning_is_said_once_however_often_a_run_is_resumed(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    run, _ = start("norm.alpha0=500", "trainer.max_epochs=1")
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("warning:")]
    assert len([line for line in said if "saturates on" in line]) == 1
    assert " more)" in said[0]
    start(cfg=resume(run, "trainer.max_epochs=2"))
    assert "saturates on" not in capfd.readouterr().out


def test_values_of_a_compiled_model_are_the_same(tiny: Tiny) -> None:
    model, inputs = model_and_inputs(tiny, "norm=dyt")
    plain = values_of(model, *inputs)
    model.compile(backend="eager")
    model(*inputs)
    assert values_of(model, *inputs) == plain
    assert named_norms(model) == tiny.norms


def test_logged_once_a_step_until_it_is_turned_off(start: Start, tiny: Tiny) -> None:
    accumulating = ["data.batch_size=8", "monitor.every_n_steps=1", "trainer.limit_train_batches=12"]
    run, _ = start(*accumulating, "trainer.max_epochs=1")
    off = ["trainer.max_epochs=2", "monitor.every_n_steps=0", "data.batch_size=8"]
    assert start(cfg=resume(run, *off))[1]["steps"] > 3
    steps = [step for step, tag, _ in rows(run) if tag == f"alpha/00_{tiny.norms[0]}"]
    assert steps == [0, 1, 2, 3], "12 batches of 8 are 3 steps, and the end"


def test_a_checkpoint_does_not_hold_the_history(start: Start) -> None:
    few, many = (
        load(start("trainer.max_epochs=1", f"monitor.every_n_steps={every}")[0] / "checkpoints" / "last.ckpt")
        for every in (5, 1)
    )
    states = [{key: one for key, one in state["callbacks"].items() if "Norm" in key} for state in (few, many)]
    assert states[0] == states[1]
