"""What the monitor says about the norms, against the same numbers computed here."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn

from {{cookiecutter.package_name}}.callbacks import norm_statistics
from {{cookiecutter.package_name}}.callbacks.norm_monitor import NormMonitor, correlation
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.errors import Diverged
from {{cookiecutter.package_name}}.models.base import Task
from {{cookiecutter.package_name}}.norms import SITES, make_norm
from {{cookiecutter.package_name}}.train import build_data, build_task

from ..conftest import each_family
from ..runs import Start, Tiny, rows, scalars
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


def readings(net: nn.Module, *inputs: torch.Tensor) -> dict[str, float]:
    sums = norm_statistics.norm_sums(net, inputs)
    layers = [name for name in norm_statistics.named_norms(net) if name in sums]
    layers.sort(key=list(sums).index)
    alphas = norm_statistics.scalar_readings(net, layers)
    totals = {name: row.tolist() for name, row in sums.items()}
    return norm_statistics.input_readings(layers, totals, {tag.partition("/")[2] for tag in alphas})


def test_statistics_by_hand_and_in_order_of_execution() -> None:
    net = Late("dyt").train()
    x = torch.randn(5, 6, 8) + 1
    values = readings(net, x)
    assert list(values)[:2] == ["input_std/00_first", "inverse_std/00_first"]
    assert values["input_std/00_first"] == pytest.approx((3 * x).double().std(correction=0).item())
    assert values["inverse_std/00_first"] == pytest.approx(1 / (3 * x).double().std(correction=0).item())
    assert values["saturated/00_first"] == pytest.approx(((3 * x * 0.5).abs() > 2).float().mean().item())
    second = torch.tanh(0.5 * 3 * x)  # without dropout: the look is in evaluation mode
    assert values["input_std/01_last"] == pytest.approx(second.double().std(correction=0).item(), rel=1e-5)
    assert net.training, "and the mode is given back"
    assert net.drop.training


def test_shift_counts_towards_saturation() -> None:
    net = make_norm("derf", 4)
    assert isinstance(net.shift, nn.Parameter)
    nn.init.constant_(net.shift, 1.5)
    x = torch.tensor([[0.0, 1.1, -1.1, -7.1]])
    assert readings(nn.Sequential(net), x)["saturated/00_0"] == 0.5  # 1.5 + 0.55 and 1.5 - 3.55


def test_norms_without_alpha_have_no_saturation() -> None:
    values = readings(Late("ln"), torch.randn(4, 8))
    assert set(values) == {"input_std/00_first", "inverse_std/00_first", "input_std/01_last", "inverse_std/01_last"}


def net_and_inputs(tiny: Tiny, *argv: str) -> tuple[nn.Module, list[torch.Tensor]]:
    cfg = compose([*tiny.argv, *argv])
    data = build_data(cfg)
    task = build_task(cfg)
    data.prepare_data()
    return task.net, [tensor[:4] for tensor in task.net_inputs(next(iter(data.train_dataloader())))]


def test_looking_changes_nothing(tiny: Tiny) -> None:
    net, inputs = net_and_inputs(tiny, "norm=bn", *tiny.random)
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    norm_statistics.norm_sums(net, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items()), "running statistics too"
    assert not any(module._forward_hooks for module in net.modules())


def test_a_compiled_net_is_looked_into(tiny: Tiny) -> None:
    net, inputs = net_and_inputs(tiny, "norm=dyt")
    plain = readings(net, *inputs)
    net.compile(backend="eager")
    net(*inputs)
    assert readings(net, *inputs) == plain
    assert list(norm_statistics.named_norms(net)) == tiny.norms


def test_once_a_step_while_gradients_accumulate(start: Start, tiny: Tiny) -> None:
    run, _ = start(
        "data.batch_size=8", "monitor.every_n_steps=1", "trainer.max_epochs=1", "trainer.limit_train_batches=12"
    )
    steps = [step for step, tag, _ in rows(run) if tag == f"alpha/00_{tiny.norms[0]}"]
    assert steps == [0, 1, 2, 3], "12 batches of 8 are 3 steps, and the end"


def test_off_means_off(start: Start) -> None:
    run, _ = start("monitor.every_n_steps=0", "trainer.max_epochs=1")
    assert not [tag for tag in scalars(run) if tag.startswith(("alpha/", "input_std/"))]
    assert not (run / "alpha.png").exists()


def test_off_means_off_when_a_run_goes_on(start: Start) -> None:
    run, _ = start("trainer.max_epochs=1", "monitor.curves=first")
    drawn = [run / f"{name}.png" for name in ("alpha", "alpha_vs_inverse_std", "curves")]
    times = [path.stat().st_mtime_ns for path in drawn]
    _, values = start(cfg=resume(run, "trainer.max_epochs=2", "monitor.every_n_steps=0"))
    assert values["steps"] == 12
    assert {step for step, tag, _ in rows(run) if tag.startswith("alpha/")} == {0, 4, 6}
    assert [path.stat().st_mtime_ns for path in drawn] == times


def test_a_run_that_diverges_has_its_pictures_all_the_same(start: Start, tmp_path: Path) -> None:
    """Its last alphas are no numbers, and have no place on a logarithmic axis."""
    often = ["monitor.every_n_steps=1", "monitor.curves=first", "trainer.log_every_n_steps=100"]
    with pytest.raises(Diverged):
        start("optim.lr=1.0e10", *often)
    (run,) = (tmp_path / "runs").iterdir()
    assert math.isnan([value for _, tag, value in rows(run) if tag.startswith("alpha/")][-1])
    assert (run / "alpha.png").is_file()
    assert (run / "summary.json").is_file()


def layout_of(run: Path) -> dict[str, dict[str, list[str]]]:
    layout = layout_pb2.Layout()
    config = events_of(run).Tensors("custom_scalars__config__")[0]
    layout.ParseFromString(config.tensor_proto.string_val[0])
    return {group.title: {chart.title: list(chart.multiline.tag) for chart in group.chart} for group in layout.category}


def empty(charts: dict[str, dict[str, list[str]]], run: Path) -> list[str]:
    """Titles of charts that nothing of the run is shown in."""
    found = scalars(run)
    named = [chart for group in charts.values() for chart in group.items()]
    return [title for title, tags in named if not any(re.match(tag, one) for tag in tags for one in found)]


def events_of(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run))
    events.Reload()
    return events


def test_charts_for_all_layers_and_pictures(start: Start, tiny: Tiny) -> None:
    run, _ = start("monitor.curves=first,last")
    charts = layout_of(run)
    assert list(charts) == ["alpha", "saturation and stream", "training"]
    assert charts["alpha"]["alpha of every layer"] == ["alpha/.*"]
    assert not empty(charts, run)
    events = events_of(run)
    assert [image.step for image in events.Images("output against input")] == [0, 12]
    assert [image.step for image in events.Images("alpha over depth and step")] == [12]
    assert [image.step for image in events.Images("alpha against 1 over std")] == [12]
    for name in ("alpha", "alpha_vs_inverse_std", "curves"):
        with Image.open(run / f"{name}.png") as picture:
            assert picture.width > 500
            assert len(picture.convert("RGB").getcolors(2**24) or []) > 50, "colours, not a blank page"


def test_a_normalisers_curves_are_fitted_and_it_has_no_charts_of_alpha(start: Start, tiny: Tiny) -> None:
    run, _ = start("norm=ln", f"monitor.curves=0,{tiny.norms[1]}", "trainer.max_epochs=1")
    charts = layout_of(run)
    assert list(charts) == ["saturation and stream", "training"]
    assert not [title for group in charts.values() for title in group if "alpha" in title or "saturated" in title]
    assert not empty(charts, run)
    fits = {tag: values for tag, values in scalars(run).items() if tag.startswith("fit_")}
    layers = [f"00_{tiny.norms[0]}", f"01_{tiny.norms[1]}"]
    assert set(fits) == {f"{kind}/{layer}" for kind in ("fit_tanh", "fit_line") for layer in layers}
    for layer in layers:
        pairs = zip(fits[f"fit_tanh/{layer}"], fits[f"fit_line/{layer}"], strict=True)
        assert all(1 >= tanh[1] >= line[1] - 1e-3 > 0 for tanh, line in pairs)
    assert not (run / "alpha_vs_inverse_std.png").exists()


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
    assert correlation({"a": 0.5, "b": 0.0}, {"a": 1.0, "b": 2.0}) is None
    assert correlation({"a": 0.5, "b": float("nan")}, {"a": 1.0, "b": 2.0}) is None


@each_family
def test_gradients_of_alpha_are_those_of_the_step(start: Start, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both batches that it accumulates over, before they are clipped."""
    seen = {}
    clip = Task.configure_gradient_clipping

    def watch(task: Task, *args: Any, **kwargs: Any) -> None:
        alpha = task.net.get_submodule(tiny.norms[1]).alpha
        seen[task.trainer.global_step] = abs(alpha.grad.item())
        clip(task, *args, **kwargs)

    monkeypatch.setattr(Task, "configure_gradient_clipping", watch)
    argv = ["data.batch_size=16", "trainer.limit_train_batches=12", "trainer.max_epochs=1"]
    run, _ = start(*argv, "optim.clip_norm=0.01", "ema.decay=0.9")
    logged = scalars(run)[f"alpha_grad/01_{tiny.norms[1]}"]
    assert [step for step, _ in logged] == [0, 4]
    assert [value for _, value in logged] == pytest.approx([seen[0], seen[4]])


@each_family
def test_what_leaves_the_last_block_is_logged_once(tiny: Tiny) -> None:
    """It is what the last norm is fed, unless that comes after the mean over tokens."""
    net, inputs = net_and_inputs(tiny, "norm=dyt")
    outputs: list[torch.Tensor] = []
    for name in "blocks.0", "blocks.1":
        net.get_submodule(name).register_forward_hook(lambda module, args, output: outputs.append(output))
    values = readings(net, *inputs)
    first, last = (output.double().std(correction=0).item() for output in outputs)
    assert values[f"input_std/02_{tiny.norms[2]}"] == pytest.approx(first, rel=1e-5)
    candidates = [tag for tag in values if tag.startswith(("output_std/", f"input_std/04_{tiny.norms[-1]}"))]
    assert sum(values[tag] == pytest.approx(last, rel=1e-5) for tag in candidates) == 1


def test_a_warning_is_said_once_however_often_a_run_is_resumed(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    run, _ = start("norm.alpha0=500", "trainer.max_epochs=1")
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("warning:")]
    assert len([line for line in said if "saturates on" in line]) == 1
    assert "(and so " in said[0]
    start(cfg=resume(run, "trainer.max_epochs=2"))
    assert "saturates on" not in capfd.readouterr().out


def test_history_survives_a_checkpoint() -> None:
    one, other = NormMonitor(), NormMonitor()
    one.layers, one.steps, one.alphas = ["norm"], [0, 50], [{"alpha/00_norm": 0.5}, {"alpha/00_norm": 0.6}]
    one.inverse_stds = [{"inverse_std/00_norm": 1.0}, {"inverse_std/00_norm": 1.1}]
    one.warnings.of_readings(50, {"saturated/00_norm": 0.95}, {})
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict()
    assert other.warnings.told == ["saturated"]
