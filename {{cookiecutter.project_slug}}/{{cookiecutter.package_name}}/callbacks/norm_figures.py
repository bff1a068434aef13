"""Captures input and output of single norms, and has the figures of the run drawn while it trains."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from ..config.errors import Diverged, did_you_mean
from ..figures import CLOUDS, Cloud, draw, fit_tanh, save_clouds
from ..loggers import log_image, read_metrics
from ..models.base import BaseModule
from ..norms import PointwiseNorm
from ..norms.maps import channels_last
from .norm_monitor import NormMonitor, forward_with_hooks, labels, log, next_batch, saturated

POINTS = 2**13  # of a cloud, at most

# TensorBoard's Custom Scalars: by category and title, tags as regular expressions
CHARTS = {
    "alpha": {
        "alpha of every layer": ["alpha/.*"],
        "smallest and largest alpha of every layer's channels": ["alpha_min/.*", "alpha_max/.*"],
        "shift of every layer": ["shift/.*"],
        "1/std of every norm's input": ["inverse_std/.*"],
        "correlation of alpha with 1/std over the layers": ["alpha_vs_inverse_std/correlation"],
        "gradient of every alpha, its size": ["alpha_grad/.*"],
    },
    "saturation and stream": {
        "share of saturated inputs": ["saturated/.*"],
        "std of every norm's input and the last block's output": ["input_std/.*", "output_std/.*"],
        "R2 of a tanh and of a line through input and output": ["fit_tanh/.*", "fit_line/.*"],
    },
}


class NormFigures(L.Callback):
    """Draws `figures.py`'s figures when `monitor` has made its 1st, 16th, 64th, 256th, ... observation, and at the end.

    Writes them as PNG into the run and sends them to every logger that takes images. Before that it captures the clouds
    of the layers that `curves` names, see `select_layers`, and logs R^2 of the tanh and of the line that fit best,
    `fit_tanh/<layer>` and `fit_line/<layer>`, for norms that are no fixed function of their input.
    """

    def __init__(self, monitor: NormMonitor, curves: str, run_dir: Path) -> None:
        self.monitor, self.curves, self.run_dir = monitor, curves, run_dir
        self._drawn = -1  # at this step
        self._charted = False

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self.monitor.step and step != self._drawn and _is_due(1 + step // self.monitor.every_n_steps):
            self._draw(trainer, pl_module, batch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.monitor.step >= 0:
            self._draw(trainer, pl_module, next_batch(trainer) if self.curves else None)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Diverged) and self.monitor.step >= 0:
            self._draw(trainer, pl_module, None)

    def _draw(self, trainer: L.Trainer, task: L.LightningModule, batch: Any) -> None:
        assert isinstance(task, BaseModule)
        self._drawn = trainer.global_step
        if batch is not None and (layers := select_layers(self.curves, self.monitor.layers)):
            # all ranks run the model, since under FSDP none can alone
            with trainer.strategy.precision_plugin.forward_context():
                clouds = capture(task.model, self.monitor.inputs(task, batch), layers if trainer.is_global_zero else [])
            self._save(trainer, clouds)
        if trainer.is_global_zero:
            self._chart(trainer)
            for title, image in draw(self.run_dir):
                log_image(trainer.loggers, f"norms/{title}", image, trainer.global_step)

    def _save(self, trainer: L.Trainer, clouds: dict[str, Cloud]) -> None:
        if not clouds:
            return
        label = labels(self.monitor.layers)
        save_clouds(self.run_dir / CLOUDS, trainer.global_step, {label[name]: cloud for name, cloud in clouds.items()})
        fits = {label[name]: fit_tanh(cloud) for name, cloud in clouds.items() if not cloud.pointwise}
        values = {f"fit_tanh/{name}": fit.r2 for name, fit in fits.items()}
        log(trainer, values | {f"fit_line/{name}": fit.r2_line for name, fit in fits.items()})

    def _chart(self, trainer: L.Trainer) -> None:
        """Groups all that is logged in TensorBoard's Custom Scalars, once."""
        if self._charted:
            return
        self._charted = True
        known = {tag.partition("/")[0] for tag in read_metrics(self.run_dir / "metrics.csv")}
        if "alpha" in known:
            known |= {"alpha_vs_inverse_std", "alpha_grad"}  # which come later
        else:
            known -= {"inverse_std"}  # without alpha to compare it with, the std is enough
        charts = {
            category: {title: ["Multiline", tags] for title, tags in group.items() if tags[0].split("/")[0] in known}
            for category, group in CHARTS.items()
        }
        best = getattr(trainer.checkpoint_callback, "monitor", None) or "val/loss"
        charts["training"] = {"loss": ["Multiline", ["train/loss", "val/loss"]]}
        charts["training"] |= {best: ["Multiline", [best]]} if best != "val/loss" else {}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars({title: group for title, group in charts.items() if group})


def select_layers(chosen: str, layers: Sequence[str]) -> list[str]:
    """Returns the layers that `chosen` lists: `first`, `middle`, `last`, numbers, names or labels.

    Args:
        chosen: separated by commas; empty for none.
        layers: all names, in the order of execution.

    Raises:
        ValueError: no such layer.
    """
    last = len(layers) - 1
    numbers = {"first": 0, "middle": len(layers) // 2, "last": last}
    for number, (name, label) in enumerate(labels(layers).items()):
        numbers |= dict.fromkeys((str(number), name, label), number)
    found = set()
    for word in filter(None, map(str.strip, chosen.split(","))) if layers else ():
        if word not in numbers:
            hint = did_you_mean(word, ["first", "middle", "last", *layers])
            raise ValueError(f"no norm {word}{hint}; choose first, middle, last, 0 to {last}, or a name")
        found.add(numbers[word])
    return [layers[number] for number in sorted(found)]


def capture(model: nn.Module, inputs: Sequence[Any], layers: Sequence[str]) -> dict[str, Cloud]:
    """Returns the clouds of these layers in one forward pass in evaluation mode; none of one whose input diverged."""
    found: dict[str, Cloud | None] = {}

    def hook(name: str, norm: nn.Module, x: Tensor, _: Any) -> None:
        if name not in found:  # `_cloud` calls the norm again
            found[name] = None
            found[name] = _cloud(norm, x)

    forward_with_hooks(model, inputs, {name: partial(hook, name) for name in layers})
    return {name: cloud for name, cloud in found.items() if cloud is not None}


def _cloud(norm: nn.Module, x: Tensor) -> Cloud | None:
    x = x.float()
    plain = {
        name: torch.full_like(vector, name.endswith("weight"), dtype=torch.float32)  # weight 1, bias 0
        for name, vector in norm.named_parameters()
        if name.rpartition(".")[2] in ("weight", "bias")
    }
    with torch.autocast(x.device.type, enabled=False):
        y = channels_last(norm, torch.func.functional_call(norm, plain, (x,)).float())
    x = channels_last(norm, x)
    if x.numel() == 0 or not (x.isfinite() & y.isfinite()).all():
        return None
    flat, size = torch.stack([x.flatten(), y.flatten()]), x.numel()
    index = torch.randint(size, (POINTS,), generator=torch.Generator().manual_seed(0))
    extremes = torch.cat([flat.argmin(dim=1), flat.argmax(dim=1)]).cpu()
    index = torch.cat([index, extremes]).unique() if size > POINTS else torch.arange(size)
    points_x, points_y = flat[:, index.to(x.device)].cpu()
    order = points_x.argsort(stable=True)
    beyond, alpha = saturated(norm, x), getattr(norm, "alpha", None)
    return Cloud(
        x=points_x[order],
        y=points_y[order],
        channel=(index[order] % x.shape[-1]) / x.shape[-1],
        pointwise=isinstance(norm, PointwiseNorm),
        alpha=None if alpha is None else float(alpha.mean()),
        saturated=None if beyond is None else float(beyond.float().mean()),
    )


def _is_due(observation: int) -> bool:
    """Returns whether this is the 1st, 16th, 64th, 256th, ...: figures of a long run cost nothing beside it."""
    power_of_four = observation & (observation - 1) == 0 and observation.bit_length() % 2 == 1
    return power_of_four and observation != 4
