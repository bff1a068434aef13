"""Pictures of what the callbacks record. Figures are made without pyplot: no display, no global state."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor


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
    edges = np.append(steps, 2 * steps[-1] - steps[-2])
    mesh = axes.pcolormesh(edges, np.arange(len(layers) + 1), values, cmap="viridis")
    axes.set_yticks(np.arange(len(layers)) + 0.5, layers, fontsize=8)
    axes.invert_yaxis()
    figure.colorbar(mesh, label="alpha")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.tensor(np.asarray(canvas.buffer_rgba())).movedim(-1, 0)[:3]
