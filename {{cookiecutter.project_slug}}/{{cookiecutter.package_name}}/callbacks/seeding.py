"""Randomness as a function of the place in training, not of its history."""

from typing import Any

import lightning as L
import torch

from ..utils import mix


class StepSeeding(L.Callback):
    """Seeds torch before every training batch from (seed, batch, rank), batches counted from the start of training.

    Dropout and stochastic depth of a batch are then the same whether the run was interrupted before it or not, and no
    generator's state has to be saved. The data are seeded by sample, in `data/sampling.py`.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(mix(self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank))
