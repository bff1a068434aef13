"""Pictures of generated samples during training."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ...loggers import log_image
from ...utils import mix
from .grids import columns, image_grid, write_png
from .module import DiTModule

SEED = 0  # the default of sample.py: pictures of two runs start from the same noise
MAX_CLASSES = 10
PATHS, POINTS = 5, 10  # samples of trajectory.png, and states of each


class Samples(L.Callback):
    """Draws `n` images of classes in turn after every validation and at the end of training, from the same noise.

    They are those of the averaged model without guidance: `samples` in the loggers and `samples.png` in the run
    directory. `trajectory` shows the way of some of them from noise to image.

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
        number = min(MAX_CLASSES, module.num_classes)
        classes = [place * module.num_classes // number for place in range(number)]  # all, or ten evenly spaced
        labels, seeds = [classes[n % number] for n in range(self.n)], [mix(SEED, n) for n in range(self.n)]
        shown = {round(point * self.steps / (POINTS - 1)) for point in range(POINTS)}
        states = []
        for step, samples in enumerate(module.sampler(self.steps).trajectory(labels, seeds)):
            if step in shown:
                states.append(samples[:PATHS].clone())
        if trainer.is_global_zero:
            self._show(trainer, "samples", samples, columns(self.n, number))
            paths = torch.stack(states, dim=1).flatten(0, 1)  # all states of a sample, then those of the next
            self._show(trainer, "trajectory", paths, len(states))

    def _show(self, trainer: L.Trainer, name: str, samples: Tensor, columns: int) -> None:
        picture = image_grid(self.pixels(samples), columns)
        write_png(Path(trainer.default_root_dir) / f"{name}.png", picture)
        log_image(trainer.loggers, name, picture.movedim(0, -1).numpy(), trainer.global_step)
