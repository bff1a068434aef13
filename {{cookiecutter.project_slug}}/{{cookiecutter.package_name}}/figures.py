"""Pictures of what the callbacks record. Figures are made without pyplot: no display, no global state."""

from collections.abc import Mapping, Sequence
from math import ceil

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from torch import Tensor

from .callbacks.norm_curves import Array, Cloud, Fit

DRAWN = 1500  # points of a cloud by their rank, and as many by their place on the axis
ACROSS = 3  # clouds side by side
LABELLED = 40  # layers that have room for their names


def alpha_heat_map(steps: Sequence[int], alphas: Sequence[Mapping[str, float]]) -> Tensor:
    """alpha over step (across) and depth (downwards), as bytes (3, H, W).

    Args:
        steps: optimiser steps, rising.
        alphas: for each of them alpha by tag, in order of depth.
    """
    layers = [tag.partition("/")[2] for tag in alphas[-1]]
    values = np.array([[row[tag] for tag in alphas[-1]] for row in alphas]).T  # (layers, steps)
    figure = Figure(figsize=(8, 1.4 + 0.22 * len(layers)), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="optimiser step", title="alpha over depth and step")
    between = (np.array(steps[1:]) + steps[:-1]) / 2  # what is read at a step stands for those around it
    edges = [steps[0], *between, steps[-1]]
    mesh = axes.pcolormesh(edges, np.arange(len(layers) + 1), values, cmap="viridis")
    axes.set_yticks(np.arange(len(layers)) + 0.5, layers, fontsize=8)
    axes.invert_yaxis()
    figure.colorbar(mesh, label="alpha")
    return _picture(figure)


def curves(step: int, shown: Mapping[str, tuple[Cloud, Fit | None]]) -> Tensor:
    """Clouds side by side, as bytes (3, H, W), each with the curve of its norm or else the S that fits it best.

    Args:
        shown: cloud and fit by the layer's label; no fit where the norm has a curve of its own.
    """
    across, down = min(ACROSS, len(shown)), ceil(len(shown) / ACROSS)
    width, height = 0.6 + 3.4 * across, 0.9 + 3.2 * down  # inches; the layout is by hand, which is twice as quick
    figure = Figure(figsize=(width, height), dpi=100)
    figure.subplots_adjust(0.6 / width, 0.5 / height, 1 - 0.15 / width, 1 - 0.8 / height, 0.22, 0.35)
    title = f"Norms at step {step}: output before weight and bias, against input; a colour for every channel"
    figure.suptitle(title, fontsize=10, y=1 - 0.08 / height, va="top")
    for place, (label, (cloud, fit)) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(down, across, place)
        drawn = _drawn(cloud.x)
        size = 4 if cloud.curve is None else 14  # which all lie on the curve
        axes.scatter(cloud.x[drawn], cloud.y[drawn], s=size, c=cloud.channel[drawn], cmap="turbo", linewidths=0)
        _line(axes, cloud, fit)
        axes.set_title(f"{label}\n{_words(cloud, fit)}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.locator_params(nbins=6)  # most of a figure's time goes into its text
        axes.grid(alpha=0.25)
        axes.set_xlabel("input" if place > len(shown) - across else "", fontsize=8)
        axes.set_ylabel("output" if place % ACROSS == 1 else "", fontsize=8)
    return _picture(figure)


def alpha_against_inverse_std(
    steps: Sequence[int],
    alphas: Sequence[Mapping[str, float]],
    inverse_stds: Sequence[Mapping[str, float]],
    correlation: float | None,
) -> Tensor:
    """A point for every layer at the last step, and the way of every layer there, as bytes (3, H, W).

    Args:
        steps: optimiser steps, rising.
        alphas: for each of them alpha by tag, in order of depth.
        inverse_stds: likewise 1/std of what the layers are fed.
        correlation: between both over the layers, at the last step.
    """
    layers = [tag.partition("/")[2] for tag in alphas[-1]]
    y = np.abs([list(row.values()) for row in alphas])  # (steps, layers)
    x = np.array([list(row.values()) for row in inverse_stds])
    figure = Figure(figsize=(10.5, 4.4), dpi=100)
    figure.subplots_adjust(0.07, 0.12, 0.86, 0.92, 0.16)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, len(layers)))
    end, way = figure.subplots(1, 2)
    end.scatter(x[-1], y[-1], s=30, c=colours, zorder=2)
    for number, layer in enumerate(layers):
        way.plot(x[:, number], y[:, number], color=colours[number], linewidth=1, label=layer)
        way.plot(x[-1, number], y[-1, number], "o", color=colours[number], markersize=4)
        if len(layers) <= LABELLED:
            name = layer.partition("_")[0]
            end.annotate(name, (x[-1, number], y[-1, number]), (4, 3), textcoords="offset points", fontsize=7)
    r = "" if correlation is None else f"; correlation of the logarithms {correlation:.2f}"
    end.set_title(f"every layer at step {steps[-1]}{r}", fontsize=9)
    way.set_title(f"from step {steps[0]} to {steps[-1]}", fontsize=9)
    for axes in (end, way):
        axes.set(xscale="log", yscale="log", xlabel="1 / std of the input")
        axes.grid(alpha=0.25)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_locator(NullLocator())
    end.set_ylabel("|alpha|")
    if len(layers) <= LABELLED:
        figure.legend(*way.get_legend_handles_labels(), loc="center right", fontsize=6, frameon=False)
    return _picture(figure)


def _drawn(x: Array) -> np.ndarray:
    """Places in sorted `x`: spread evenly by rank, where most of them are, and along the axis, where few are."""
    by_rank = np.linspace(0, len(x) - 1, min(DRAWN, len(x))).round().astype(int)
    by_place = np.searchsorted(x, np.linspace(x[0], x[-1], DRAWN)).clip(0, len(x) - 1)
    return np.unique(np.concatenate([by_rank, by_place]))


def _line(axes: Axes, cloud: Cloud, fit: Fit | None) -> None:
    if cloud.curve is not None:
        axes.plot(np.linspace(cloud.x[0], cloud.x[-1], len(cloud.curve)), cloud.curve, color="black", linewidth=0.7)
    elif fit is not None:
        grid = np.linspace(cloud.x[0], cloud.x[-1], 400)
        axes.plot(grid, fit(grid), color="black", linewidth=1.2)


def _words(cloud: Cloud, fit: Fit | None) -> str:
    if fit is not None:
        return f"R²: tanh {fit.r2:.3f}, straight line {fit.r2_line:.3f}"
    return "" if cloud.alpha is None else f"alpha {cloud.alpha:.3g}, {cloud.saturated:.1%} saturated"


def _picture(figure: Figure) -> Tensor:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.tensor(np.asarray(canvas.buffer_rgba())).movedim(-1, 0)[:3]
