"""A mean for metrics, over batches and devices."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Mean(Metric):
    """A mean that counts nan. torchmetrics' MeanMetric leaves nan out, and so hides a model that diverges at times.

    It adds up in fp32; in a model of 16 bits, that one adds up in 16 bits, where a long sum stops growing.

    Args:
        size: of a tensor of means; one number without.
    """

    total: Tensor
    number: Tensor

    def __init__(self, *size: int, **options: Any) -> None:
        super().__init__(**options)
        for name in ("total", "number"):
            self.add_state(name, torch.zeros(size, dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, total: Tensor, number: Tensor | int) -> None:
        """Takes in the sum of `number` values."""
        # a cast of the module has cast the states too, while they were 0
        self.total = self.total.float() + total.detach().float()
        self.number = self.number.float() + number

    def compute(self) -> Tensor:
        return self.total / self.number
