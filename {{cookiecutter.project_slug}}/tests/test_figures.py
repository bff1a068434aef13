"""Figures from the files of a run, and the fit of a tanh."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from {{cookiecutter.package_name}} import figures
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.figures import Cloud, fit_tanh
from {{cookiecutter.package_name}}.loggers import MetricsCSV

NAN = float("nan")


def cloud(x: torch.Tensor, y: torch.Tensor, pointwise: bool = False) -> Cloud:
    order = x.argsort()
    return Cloud(x[order], y[order], torch.linspace(0, 1, len(x)), pointwise)


def normal(size: int) -> torch.Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def write_run(run: Path, alphas: list[list[float]]) -> None:
    """Writes metrics.csv with an observation of alpha every 50 steps, and two clouds."""
    logger = MetricsCSV(run / "metrics.csv")
    for number, row in enumerate(alphas):
        values = {f"alpha/{layer:02d}_norm": alpha for layer, alpha in enumerate(row)}
        inverse = {f"inverse_std/{layer:02d}_norm": 1.0 + layer for layer in range(len(row))}
        logger.log_metrics(values | inverse | {"train/loss": 1.0}, 50 * number)
    logger.finalize("success")
    x = normal(2000)
    clouds = {"00_norm": cloud(x, torch.tanh(x), True), "01_norm": cloud(x, x + 0.1 * x.flip(0))}
    figures.save_clouds(run / figures.CLOUDS, 50, clouds)


def pictures_of(run: Path) -> set[str]:
    return {path.stem for path in run.glob("*.png")}


def test_all_are_drawn_from_the_files_and_can_be_drawn_again(tmp_path: Path) -> None:
    write_run(tmp_path, [[0.5, 0.5, 0.5], [0.4, 0.6, 0.7], [0.3, 0.7, 0.9]])
    figures.main([f"run={tmp_path}"])
    assert pictures_of(tmp_path) == {"alpha", "alpha_heat_map", "alpha_vs_inverse_std", "curves"}
    first = {path: path.read_bytes() for path in tmp_path.glob("*.png")}
    for path in first:
        with Image.open(path) as picture:
            assert 500 < picture.width < 700, "TensorBoard shows it at 350: letters stay large enough"
            assert len(picture.convert("RGB").getcolors(2**24) or []) > 50, "colours, not a blank page"
        path.unlink()
    figures.main([f"run={tmp_path}"])
    assert {path: path.read_bytes() for path in tmp_path.glob("*.png")} == first


def test_colours_go_by_depth_and_the_bar_tells_which() -> None:
    metrics = {f"alpha/{layer:03d}": {0: 0.5, 50: 0.5 + 0.01 * layer} for layer in range(120)}
    figure = figures.alpha_lines(metrics)
    assert figure is not None
    axes, bar = figure.axes
    lines = axes.get_lines()
    assert len({tuple(line.get_color()) for line in lines}) > 100
    assert [np.asarray(line.get_ydata())[-1] for line in lines] == [0.5 + 0.01 * layer for layer in range(120)]
    ticks = [int(tick) for tick in bar.get_yticks()]
    assert (ticks[0], ticks[-1]) == (0, 119)
    assert len(ticks) < 12
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.xaxis.label):
        assert text.get_fontsize() >= 10


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [
        ([], set()),
        ([[0.5, 0.6]], set()),  # a single observation
        ([[0.5, 0.5], [0.6, 0.7], [NAN, NAN]], {"alpha", "alpha_heat_map", "alpha_vs_inverse_std"}),  # has diverged
        ([[0.5, 0.5], [NAN, NAN]], {"alpha", "alpha_heat_map"}),  # at once
        ([[0.5, 0.5], [0.6, 0.0]], {"alpha", "alpha_heat_map"}),  # no logarithm
    ],
)
def test_what_cannot_be_drawn_is_left_out(tmp_path: Path, alphas: list[list[float]], expected: set[str]) -> None:
    write_run(tmp_path, alphas or [[]])
    (tmp_path / figures.CLOUDS).unlink()
    assert len(list(figures.draw(tmp_path))) == len(expected)
    assert pictures_of(tmp_path) == expected


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run="):
        figures.main([f"run={tmp_path}"])


@pytest.mark.parametrize(("weight", "alpha", "bias"), [(1.7, 0.6, 0.3), (-0.4, 3.0, -1.0), (5.0, 0.05, 0.0)])
def test_the_fit_recovers_a_tanh(weight: float, alpha: float, bias: float) -> None:
    x = 3 * normal(5000)
    found = fit_tanh(cloud(x, weight * torch.tanh(alpha * x) + bias))
    assert (found.weight, found.alpha, found.bias) == pytest.approx((weight, alpha, bias), rel=1e-4, abs=1e-4)
    assert found.r2 == pytest.approx(1.0)
    assert found(np.array([2.0])) == pytest.approx(weight * np.tanh(alpha * 2) + bias, rel=1e-4)


def test_the_fit_is_the_least_squares_one() -> None:
    x, noise = 2 * normal(6000).view(2, -1)
    y = torch.tanh(x) + 0.15 * noise
    found = fit_tanh(cloud(x, y))

    def residuals(weight: float, alpha: float, bias: float) -> float:
        return (weight * torch.tanh(alpha * x) + bias - y).square().sum().item()

    best = residuals(found.weight, found.alpha, found.bias)
    for step in (-0.01, 0.01):
        assert residuals(found.weight + step, found.alpha, found.bias) > best
        assert residuals(found.weight, found.alpha + step, found.bias) > best
        assert residuals(found.weight, found.alpha, found.bias + step) > best
    assert found.r2 == pytest.approx(1 - best / (y - y.mean()).square().sum().item())
    assert found.r2_line == pytest.approx(torch.corrcoef(torch.stack([x, y]))[0, 1].item() ** 2)
    assert found.r2_line < found.r2


def test_a_straight_line_a_constant_and_inputs_far_from_zero() -> None:
    x = torch.linspace(-2, 2, 100, dtype=torch.float64)
    straight, constant = fit_tanh(cloud(x, 3 * x + 1)), fit_tanh(cloud(x, torch.full_like(x, 2.0)))
    assert straight.r2_line == pytest.approx(1.0)
    assert straight.r2 == pytest.approx(1.0, abs=1e-3)
    assert constant(x.numpy()) == pytest.approx(np.full(100, 2.0))
    x = 50 + 3 * normal(1000)  # where most tanh are constant, which explains nothing
    far = fit_tanh(cloud(x, torch.tanh(x - 50)))
    assert far.r2 == pytest.approx(far.r2_line, rel=0.05)
    assert 0.5 < far.r2_line < 1
