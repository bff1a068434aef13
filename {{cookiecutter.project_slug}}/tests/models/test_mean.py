"""The mean of losses, where torchmetrics' own is wrong."""

import pytest
import torch
from torch import nn

from {{cookiecutter.package_name}}.models.mean import Mean


def test_mean_over_batches_of_unequal_size() -> None:
    mean = Mean()
    mean.update(torch.tensor(6.0), 3)
    mean.update(torch.tensor(8.0), torch.tensor(1))
    assert mean.compute() == 14 / 4


def test_one_batch_that_is_nan_shows() -> None:
    mean = Mean()
    mean.update(torch.tensor(float("nan")), 4)
    mean.update(torch.tensor(2.0), 4)
    assert mean.compute().isnan()


@pytest.mark.parametrize("again", [False, True], ids=["first", "after a reset"])
def test_a_long_sum_in_a_net_of_16_bits(again: bool) -> None:
    mean = Mean()
    nn.ModuleDict({"val": mean}).to(torch.bfloat16)
    if again:
        mean.update(torch.tensor(1.0), 1)
        mean.reset()
    for batch in range(2000):
        mean.update(torch.tensor(3.0 if batch < 1000 else 1.0), 1)
    assert mean.compute() == 2
