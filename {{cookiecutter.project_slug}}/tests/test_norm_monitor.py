"""What the monitor says about the norms, against the same numbers computed here."""

import pytest
import torch
from PIL import Image
from torch import nn

from {{cookiecutter.package_name}}.build import build_data, build_task
from {{cookiecutter.package_name}}.callbacks import norm_statistics
from {{cookiecutter.package_name}}.callbacks.norm_monitor import NormMonitor
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.norms import make_norm

from .runs import Start, Tiny, rows, scalars


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
    totals = [row.tolist() for row in sums.values()]
    alphas = norm_statistics.scalar_readings(net, list(sums))
    return norm_statistics.input_readings(list(sums), totals, {tag.partition("/")[2] for tag in alphas})


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
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_compiled_net_is_looked_into(tiny: Tiny) -> None:
    net, inputs = net_and_inputs(tiny, "norm=dyt")
    plain = readings(net, *inputs)
    net.compile(backend="eager")
    net(*inputs)
    assert readings(net, *inputs) == plain
    assert [name for name, _ in norm_statistics.named_norms(net)] == tiny.norms


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


def test_one_chart_for_all_layers_and_a_heat_map(start: Start) -> None:
    run, _ = start()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2

    events = EventAccumulator(str(run))
    events.Reload()
    layout = layout_pb2.Layout()
    layout.ParseFromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert set(charts) == {"alpha of every layer", "1/std of every norm's input", "share of saturated inputs"}
    assert charts["alpha of every layer"] == ["alpha/.*"]
    assert "alpha over depth and step" in events.Tags()["images"]
    with Image.open(run / "alpha.png") as picture:
        assert picture.width > 500
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 50, "a colour scale, not a blank page"


def test_history_survives_a_checkpoint() -> None:
    one, other = NormMonitor(), NormMonitor()
    one.layers, one.steps, one.alphas = ["norm"], [0, 50], [{"alpha/00_norm": 0.5}, {"alpha/00_norm": 0.6}]
    other.load_state_dict(one.state_dict())
    assert (other.layers, other.steps, other.alphas) == (one.layers, one.steps, one.alphas)
