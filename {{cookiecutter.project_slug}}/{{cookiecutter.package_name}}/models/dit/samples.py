"""What the net draws, to look at while it trains."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ...errors import require
from ...utils import columns, evaluating, levels, mix, tiled, write_png
from .sampling import generators, normal

if TYPE_CHECKING:
    from .module import DiTModule

SEED = 0  # sample.py's, whatever the run's: pictures of two runs start from the same noise
CLASSES = 10  # at most, of all
PATHS, POINTS = 5, 10  # samples that are shown on their way, and places on it


class Samples(L.Callback):
    """After every validation and at the end of training, `n` images of classes in turn, from the same noise every time.

    They are drawn from the averaged net, in evaluation mode, without guidance: `samples` in TensorBoard (Images), and
    `samples.png` in the run directory. `trajectory` shows the way of some of them from noise to image.

    Every device draws them all, since under FSDP none can run the net alone.

    Args:
        pixels: what the net works on (B, C, H, W) -> pixels (B, 1 or 3, H', W') in 0..1.
        n: 0 turns it off.
        steps: of the objective's sampler.
    """

    def __init__(self, pixels: Callable[[Tensor], Tensor], n: int = 40, steps: int = 50) -> None:
        require(n >= 0, f"task.samples.n={n}: expected 0 (off) or more")
        self.pixels, self.n, self.steps = pixels, n, steps
        self._drawn_at = -1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._draw(trainer, cast("DiTModule", pl_module))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer, cast("DiTModule", pl_module))

    @torch.no_grad()
    def _draw(self, trainer: L.Trainer, task: "DiTModule") -> None:
        step = trainer.global_step
        if not self.n or step == self._drawn_at:
            return
        self._drawn_at = step
        shown = spread(task.num_classes)
        samples, ways = self._sample(trainer, task, [shown[number % len(shown)] for number in range(self.n)])
        if trainer.is_global_zero:
            grid = tiled(levels(self.pixels(samples)), columns(self.n, len(shown)))
            states = self.pixels(ways.transpose(0, 1).flatten(0, 1))  # way by way
            self._show(trainer, "samples", grid)
            self._show(trainer, "trajectory", tiled(levels(states), len(ways)))

    def _sample(self, trainer: L.Trainer, task: "DiTModule", classes: list[int]) -> tuple[Tensor, Tensor]:
        """Samples (n, C, H, W), and the states of the first ones on their way (points, paths, C, H, W)."""
        sources = generators([mix(SEED, number) for number in range(self.n)])
        noise, labels = normal(sources, task.shape, task.device), torch.tensor(classes, device=task.device)
        sampler = task.objective.samplers[0]
        points = {round(point * self.steps / (POINTS - 1)) for point in range(POINTS)}
        ways = []
        net = task.eval_model
        with trainer.strategy.precision_plugin.forward_context(), evaluating(net):
            path = task.objective.path(net, noise, labels, self.steps, sampler, sources)
            for step, state in enumerate(chain([noise], path)):
                if step in points:
                    ways.append(state[:PATHS].clone())
        return state, torch.stack(ways)

    def _show(self, trainer: L.Trainer, name: str, picture: Tensor) -> None:
        write_png(Path(trainer.default_root_dir) / f"{name}.png", picture)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, picture, trainer.global_step)


def spread(classes: int) -> list[int]:
    """All of them, or ten."""
    number = min(CLASSES, classes)
    return [place * classes // number for place in range(number)]
