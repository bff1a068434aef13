"""Clouds of single norms against formulas, and the pictures and charts of a run."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn

from {{cookiecutter.package_name}}.callbacks import norm_figures
from {{cookiecutter.package_name}}.callbacks.norm_figures import capture, select_layers
from {{cookiecutter.package_name}}.config.errors import Diverged, UsageError
from {{cookiecutter.package_name}}.norms import make_norm

from ..runs import Start, Tiny, rows, scalars


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def randomized(name: str, dim: int) -> nn.Module:
    norm = make_norm(name, dim)
    for key, parameter in norm.named_parameters():
        if key.endswith(("weight", "bias")):
            nn.init.uniform_(parameter, 0.5, 2.0)
    return norm


def test_layer_norm_is_captured_before_its_weight_and_bias() -> None:
    x = torch.randn(2, 5, 6) * torch.rand(2, 5, 1) + 1
    cloud = capture(nn.Sequential(randomized("ln", 6)), [x], ["0"])["0"]
    expected = F.layer_norm(x.double(), (6,), eps=1e-6).flatten()
    order = x.flatten().argsort(stable=True)
    torch.testing.assert_close(cloud.x, x.flatten()[order])
    torch.testing.assert_close(cloud.y, expected[order].float(), atol=5e-5, rtol=0)
    torch.testing.assert_close(cloud.channel, order % 6 / 6)
    assert (cloud.pointwise, cloud.alpha, cloud.saturated) == (False, None, None)


@pytest.mark.parametrize("name", ["dyt", "derf"])
def test_a_point_wise_norm_is_captured_with_its_alpha_and_saturation(name: str) -> None:
    norm = randomized(name, 6)
    for scalar in norm.scalars:
        nn.init.constant_(getattr(norm, scalar), 0.8)
    cloud = capture(nn.Sequential(norm), [3 * torch.randn(2, 5, 6)], ["0"])["0"]
    inner = 0.8 * cloud.x + (0.8 if name == "derf" else 0.0)
    torch.testing.assert_close(cloud.y, torch.tanh(inner) if name == "dyt" else torch.erf(inner), atol=1e-5, rtol=0)
    assert cloud.pointwise
    assert cloud.alpha == pytest.approx(0.8)
    assert cloud.saturated == pytest.approx((inner.abs() > 2).float().mean().item())


def test_a_norm_over_maps_with_an_alpha_for_each_channel() -> None:
    norm = make_norm("dyt", 3, channels_first=True, alpha_per="channel")
    norm.alpha.data = torch.tensor([0.1, 1.0, 4.0])
    x = torch.randn(2, 3, 4, 5)
    cloud = capture(nn.Sequential(norm), [x], ["0"])["0"]
    alphas = norm.alpha.detach()[(cloud.channel * 3).round().long()]
    torch.testing.assert_close(cloud.y, torch.tanh(alphas * cloud.x), atol=1e-6, rtol=0)
    torch.testing.assert_close(cloud.x, x.flatten().sort().values)
    assert cloud.alpha == pytest.approx(1.7)
    assert cloud.saturated == pytest.approx(((alphas * cloud.x).abs() > 2).float().mean().item())


def test_batch_norm_by_its_running_statistics() -> None:
    norm = randomized("bn", 4)
    norm.bn.running_mean.uniform_(-1, 1)
    norm.bn.running_var.uniform_(0.5, 2)
    before = {key: tensor.clone() for key, tensor in norm.state_dict().items()}
    x = torch.randn(3, 5, 4)
    cloud = capture(nn.Sequential(norm).train(), [x], ["0"])["0"]
    expected = (x - before["bn.running_mean"]) / (before["bn.running_var"] + 1e-5).sqrt()
    torch.testing.assert_close(cloud.y.sort().values, expected.flatten().sort().values, atol=1e-5, rtol=0)
    assert all(torch.equal(tensor, before[key]) for key, tensor in norm.state_dict().items())


def test_a_large_cloud_keeps_its_extremes_and_all_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_figures, "POINTS", 64)
    x = torch.randn(16, 16, 64, generator=torch.Generator().manual_seed(0))
    y = F.layer_norm(x, (64,))
    cloud = capture(nn.Sequential(make_norm("ln", 64)), [x], ["0"])["0"]
    assert 60 < len(cloud.x) <= 68
    for captured, all_of_them in ((cloud.x, x), (cloud.y, y)):
        torch.testing.assert_close(
            torch.stack(captured.aminmax()), torch.stack(all_of_them.aminmax()), rtol=1e-5, atol=0
        )
    assert len(set(cloud.channel.tolist())) > 30


def events_of(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run))
    events.Reload()
    return events


def charts_of(run: Path) -> dict[str, dict[str, list[str]]]:
    """Returns the tags of Custom Scalars by category and title; each chart shows something of the run."""
    layout = layout_pb2.Layout()
    config = events_of(run).Tensors("custom_scalars__config__")[0]
    layout.ParseFromString(config.tensor_proto.string_val[0])
    charts = {
        group.title: {chart.title: list(chart.multiline.tag) for chart in group.chart} for group in layout.category
    }
    for group in charts.values():
        assert all(any(re.fullmatch(tag, one) for tag in tags for one in scalars(run)) for tags in group.values())
    return charts


def test_charts_and_pictures_of_a_run(start: Start, tiny: Tiny) -> None:
    run, _ = start("monitor.curves=first,last")
    charts = charts_of(run)
    assert list(charts) == ["alpha", "saturation and stream", "training"]
    assert charts["alpha"]["alpha of every layer"] == ["alpha/.*"]
    images = {tag: [image.step for image in events_of(run).Images(tag)] for tag in events_of(run).Tags()["images"]}
    assert images["norms/output against input"] == [0, 12]
    for tag in ("alpha of every layer", "alpha over depth and step", "alpha against 1 over std"):
        assert images[f"norms/{tag}"] == [12]
    for name in ("alpha", "alpha_heat_map", "alpha_vs_inverse_std", "curves"):
        assert (run / f"{name}.png").is_file()


def test_layers_by_words_numbers_and_names(start: Start, tmp_path: Path) -> None:
    layers = ["a.norm1", "a.norm2", "b.norm1", "b.norm2", "norm"]
    assert select_layers("first,middle,last", layers) == ["a.norm1", "b.norm1", "norm"]
    assert select_layers(" last, 0,norm,01_a.norm2", layers) == ["a.norm1", "a.norm2", "norm"]
    assert select_layers("", layers) == select_layers("first", []) == []
    for word in ("a.norn1", "5"):
        with pytest.raises(ValueError, match=word):
            select_layers(word, layers)
    with pytest.raises(UsageError, match="nothing"):
        start("monitor.curves=nothing")
    assert not list(tmp_path.glob("runs/*"))


def test_a_run_without_alphas_fits_curves_of_its_norms(start: Start, tiny: Tiny) -> None:
    run, _ = start("norm=ln", f"monitor.curves=0,{tiny.norms[1]}", "trainer.max_epochs=1")
    assert list(charts_of(run)) == ["saturation and stream", "training"]
    found = scalars(run)
    for layer in (f"00_{tiny.norms[0]}", f"01_{tiny.norms[1]}"):
        pairs = zip(found[f"fit_tanh/{layer}"], found[f"fit_line/{layer}"], strict=True)
        assert all(1 >= tanh[1] >= line[1] - 1e-3 > 0 for tanh, line in pairs)
    assert not list(run.glob("alpha*.png"))


def test_a_run_that_diverges_has_its_pictures(start: Start, tmp_path: Path) -> None:
    """NaN has no place on a logarithmic axis."""
    assert capture(nn.Sequential(make_norm("ln", 4)), [torch.full((2, 4), math.nan)], ["0"]) == {}
    with pytest.raises(Diverged):
        start("optim.lr=1.0e10", "monitor.every_n_steps=1", "monitor.curves=first", "trainer.log_every_n_steps=100")
    (run,) = (tmp_path / "runs").iterdir()
    assert np.isnan([value for _, tag, value in rows(run) if tag.startswith("alpha/")][-1])
    assert (run / "alpha.png").is_file()
