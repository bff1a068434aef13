"""Pictures of generated samples during training."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ...utils import columns, levels, mix, tiled, write_png
from .module import DiTModule

SEED = 0  # the default of sample.py: pictures of two runs start from the same noise
MAX_CLASSES = 10
PATHS, POINTS = 5, 10  # samples of trajectory.png, and states of each


class Samples(L.Callback):
    """Draws `n` images of classes in turn after every validation and at the end of training, from the same noise.

    They are those of the averaged model without guidance: `samples` in TensorBoard (Images) and `samples.png` in the
    run directory. `trajectory` shows the way of some of them from noise to image.

    Every device draws all of them, since under FSDP none can run the model alone.

    Args:
        pixels: function from the model's samples (B, C, H, W) to pixels (B, 1 or 3, H', W') in 0..1.
        n: 0 turns it off.
        steps: of the objective's first sampler.
    """

    def __init__(self, pixels: Callable[[Tensor], Tensor], n: int = 40, steps: int = 50) -> None:
        self.pixels, self.n, self.steps = pixels, n, steps
        self._last_step = -1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer, pl_module)

    def _draw(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, DiTModule)
        if not self.n or trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        classes = spread(module.num_classes)
        labels = [classes[number % len(classes)] for number in range(self.n)]
        shown = {round(point * self.steps / (POINTS - 1)) for point in range(POINTS)}
        states = []
        for step, samples in enumerate(module.trajectory(labels, [mix(SEED, n) for n in range(self.n)], self.steps)):
            if step in shown:
                states.append(samples[:PATHS].clone())
        if trainer.is_global_zero:
            self._show(trainer, "samples", tiled(levels(self.pixels(samples)), columns(self.n, len(classes))))
            paths = torch.stack(states, dim=1).flatten(0, 1)  # all states of a sample, then those of the next
            self._show(trainer, "trajectory", tiled(levels(self.pixels(paths)), len(states)))

    def _show(self, trainer: L.Trainer, name: str, picture: Tensor) -> None:
        write_png(Path(trainer.default_root_dir) / f"{name}.png", picture)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, picture, trainer.global_step)


def spread(classes: int) -> list[int]:
    """Returns all classes, or ten, evenly spaced."""
    number = min(MAX_CLASSES, classes)
    return [place * classes // number for place in range(number)]
