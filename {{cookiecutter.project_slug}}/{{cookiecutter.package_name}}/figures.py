"""Figures of a run, drawn from its files; `python -m <package>.figures run=runs/<run>` draws them again.

Each function takes what was read and returns a matplotlib Figure, or None where the run has too little for it. Figures
are made without pyplot: no display, no global state. They are small and their letters large, because TensorBoard shows
images a few hundred pixels wide.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize_scalar
from torch import Tensor

from .loggers import read_metrics
from .utils import replace

CLOUDS = "norm_curves.pt"  # in a run: input and output of single norms, from one batch
ALPHA, INVERSE_STD = "alpha", "inverse_std"
SIZE = (6.0, 4.0)  # inches, of 100 pixels
readable = matplotlib.rc_context({"font.size": 13, "axes.titlesize": 13, "axes.grid": True, "grid.alpha": 0.25})

Array = NDArray[np.float64]
Metrics = Mapping[str, Mapping[int, float]]  # values by tag and step


def draw(run_dir: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Writes all figures that the run's files allow as PNG, and yields for each a title and its bytes (H, W, 3)."""
    metrics = read_metrics(run_dir / "metrics.csv")
    figures = {
        "alpha": ("alpha of every layer", alpha_lines(metrics)),
        "alpha_heat_map": ("alpha over depth and step", alpha_heat_map(metrics)),
        "alpha_vs_inverse_std": ("alpha against 1 over std", alpha_against_inverse_std(metrics)),
    }
    if (run_dir / CLOUDS).exists():
        figures["curves"] = ("output against input", curves(*load_clouds(run_dir / CLOUDS)))
    for name, (title, figure) in figures.items():
        if figure is not None:
            yield title, _write(run_dir / f"{name}.png", figure)


def _write(path: Path, figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())[..., :3]
    replace(path, lambda file: Image.fromarray(image).save(file, "PNG"))
    return image


# --- alpha ---


@readable
def alpha_lines(metrics: Metrics) -> Figure | None:
    """Draws alpha over the steps, a line for each layer, coloured by depth."""
    steps, alphas = _by_layer(metrics, ALPHA)
    if len(steps) < 2:
        return None
    figure, axes = _figure(title="alpha of every layer", xlabel="optimiser step")
    colours = _depth_bar(figure, axes, alphas.shape[1])
    for alpha, colour in zip(alphas.T, colours, strict=True):
        axes.plot(steps, alpha, color=colour, linewidth=1.6)
    return figure


@readable
def alpha_heat_map(metrics: Metrics) -> Figure | None:
    """Draws alpha over steps (across) and depth (downwards)."""
    steps, alphas = _by_layer(metrics, ALPHA)
    if len(steps) < 2:
        return None
    figure, axes = _figure(title="alpha", xlabel="optimiser step", ylabel="layer")
    edges = [steps[0], *(steps[1:] + steps[:-1]) / 2, steps[-1]]  # a value stands for the steps around its own
    mesh = axes.pcolormesh(edges, np.arange(alphas.shape[1] + 1) - 0.5, alphas.T, cmap="viridis")
    axes.set_yticks(_ticks(alphas.shape[1]))
    axes.invert_yaxis()
    axes.grid(False)
    figure.colorbar(mesh)
    return figure


@readable
def alpha_against_inverse_std(metrics: Metrics) -> Figure | None:
    """Draws |alpha| against 1/std of the input: a dot for each layer at the last step, and its path to there."""
    steps, alphas = _by_layer(metrics, ALPHA)
    seen, inverse_stds = _by_layer(metrics, INVERSE_STD)
    steps, ours, theirs = np.intersect1d(steps, seen, return_indices=True)
    y, x = np.abs(alphas[ours]), inverse_stds[theirs]
    if x.shape != y.shape:
        return None
    with np.errstate(all="ignore"):
        drawable = np.isfinite(np.log(x) + np.log(y)).all(axis=1)  # not after a divergence
    x, y, steps = x[drawable], y[drawable], steps[drawable]
    if len(steps) < 2:
        return None
    r = metrics.get("alpha_vs_inverse_std/correlation", {}).get(int(steps[-1]))
    figure, axes = _figure(
        title=f"step {steps[-1]}" + ("" if r is None else f", correlation {r:.2f}"),
        xlabel="1 / std of the input",
        ylabel="|alpha|",
        xscale="log",
        yscale="log",
    )
    colours = _depth_bar(figure, axes, y.shape[1])
    for number, colour in enumerate(colours):
        axes.plot(x[:, number], y[:, number], color=colour, linewidth=1)
        axes.plot(x[-1, number], y[-1, number], "o", color=colour, markersize=7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    return figure


def _by_layer(metrics: Metrics, quantity: str) -> tuple[NDArray[np.int64], Array]:
    """Returns the steps (S,) at which all layers have the quantity, and its values (S, layers) in order of depth."""
    layers = [values for tag, values in metrics.items() if tag.startswith(f"{quantity}/")]
    steps = sorted(set.intersection(*map(set, layers))) if layers else []
    values = np.array([[layer[step] for layer in layers] for step in steps])
    return np.array(steps, dtype=np.int64), values.reshape(len(steps), len(layers))


def _figure(**labels: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, dpi=100, layout="constrained")
    return figure, figure.add_subplot(**labels)


def _depth_bar(figure: Figure, axes: Axes, layers: int) -> Array:
    """Adds a colour bar that tells the layers' numbers; returns their colours (layers, 4)."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, layers))
    mappable = ScalarMappable(BoundaryNorm(np.arange(layers + 1) - 0.5, layers), ListedColormap(colours))
    figure.colorbar(mappable, ax=axes, label="layer, by depth", ticks=_ticks(layers)).ax.invert_yaxis()
    return colours


def _ticks(layers: int) -> list[int]:
    """Returns at most nine numbers of layers, with the first and the last."""
    return sorted({round(place) for place in np.linspace(0, layers - 1, min(layers, 9))})


# --- output against input of single norms (arXiv 2503.10622, figure 2) ---


@dataclass(frozen=True)
class Cloud:
    """Elements of a norm's input and output before weight and bias, which differ by channel; sorted by input.

    Attributes:
        x: (N,), with the least and the greatest of all.
        y: (N,), likewise.
        channel: (N,), from 0 to 1 over the channels.
        pointwise: whether y is a function of x alone.
        alpha: of a norm that has one, the mean of its channels.
        saturated: share of the inputs with |alpha x + shift| > 2, where there is an alpha.
    """

    x: Tensor
    y: Tensor
    channel: Tensor
    pointwise: bool
    alpha: float | None = None
    saturated: float | None = None


def save_clouds(file: Path, step: int, clouds: Mapping[str, Cloud]) -> None:
    content = {"step": step, "clouds": {layer: vars(cloud) for layer, cloud in clouds.items()}}
    replace(file, lambda part: torch.save(content, part))


def load_clouds(file: Path) -> tuple[int, dict[str, Cloud]]:
    """Returns the step at which they were captured, and the clouds by layer."""
    content = torch.load(file, weights_only=True)
    return content["step"], {layer: Cloud(**cloud) for layer, cloud in content["clouds"].items()}


@readable
def curves(step: int, clouds: Mapping[str, Cloud]) -> Figure:
    """Draws the clouds, and through each the curve of its norm, or the tanh that fits best if it has none."""
    down = min(4, len(clouds))
    across = -(-len(clouds) // down)
    figure = Figure(figsize=(SIZE[0] * across, 0.4 + 3.2 * down), dpi=100, layout="constrained")
    figure.suptitle(f"step {step}: output before weight and bias")
    for place, (layer, cloud) in enumerate(clouds.items(), start=1):
        axes = figure.add_subplot(down, across, place, xlabel="input")
        size = 14 if cloud.pointwise else 4
        axes.scatter(cloud.x, cloud.y, s=size, c=cloud.channel, cmap="turbo", linewidths=0)
        if cloud.pointwise:
            axes.plot(cloud.x, cloud.y, color="black", linewidth=0.7)
            words = "" if cloud.alpha is None else f"alpha {cloud.alpha:.3g}, {cloud.saturated:.1%} saturated"
        else:
            fit = fit_tanh(cloud)
            x = np.linspace(float(cloud.x[0]), float(cloud.x[-1]), 400)
            axes.plot(x, fit(x), color="black", linewidth=1.2)
            words = f"R²: tanh {fit.r2:.3f}, line {fit.r2_line:.3f}"
        axes.set_title(f"{layer}\n{words}")
    return figure


@dataclass(frozen=True)
class Fit:
    """weight * tanh(alpha * x) + bias, with R^2 of it and of a straight line."""

    weight: float
    alpha: float
    bias: float
    r2: float
    r2_line: float

    def __call__(self, x: Array) -> Array:
        return self.weight * np.tanh(self.alpha * x) + self.bias


def fit_tanh(cloud: Cloud) -> Fit:
    """Fits by least squares: alpha by search, first on a coarse grid; weight and bias follow from each alpha."""
    x, y = cloud.x.double().numpy(), cloud.y.double().numpy()

    def miss(log_alpha: float) -> float:
        return -_r2(np.tanh(np.exp(log_alpha) * x), y)

    largest = max(float(np.abs(x).max()), 1e-30)
    grid = np.log(np.geomspace(0.05, 2000.0, 24) / largest)  # from almost straight to a step
    best = int(np.argmin([miss(log_alpha) for log_alpha in grid]))
    alpha = float(np.exp(minimize_scalar(miss, bounds=grid.take([best - 1, best + 1], mode="clip")).x))
    s = np.tanh(alpha * x)
    weight = float(np.cov(s, y)[0, 1] / max(s.var(ddof=1), 1e-30))
    return Fit(weight, alpha, float(y.mean() - weight * s.mean()), _r2(s, y), _r2(x, y))


def _r2(x: Array, y: Array) -> float:
    """Returns the share of y's variance that a line in x explains; of a constant y all, from a constant x nothing."""
    x, y = x - x.mean(), y - y.mean()
    scale = (x @ x) * (y @ y)
    return float((x @ y) ** 2 / scale) if scale > 0 else float(not y.any())


def main(argv: list[str]) -> None:
    from .cli import read_options
    from .config.errors import require

    run = Path(read_options(argv, {"run": ("", "a run directory")})["run"])
    require((run / "metrics.csv").is_file(), f"run={run}: there is no run there (no metrics.csv)")
    for title, _ in draw(run):
        print(title)


if __name__ == "__main__":
    from .cli import run

    run(main)
