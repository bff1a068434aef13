"""Layers that networks share, against formulas in float64."""

import torch
from torch import Tensor

from {{cookiecutter.package_name}}.models import layers

CPU = torch.device("cpu")


def some(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """x (..., E) whose pairs (i, i + E/2) are complex numbers, turned by angles (..., E/2)."""
    numbers = torch.complex(*x.chunk(2, dim=-1)) * torch.exp(1j * angles)
    return torch.cat((numbers.real, numbers.imag), dim=-1)


def frequencies(pairs: int, base: float) -> Tensor:
    return torch.tensor([base ** (-i / pairs) for i in range(pairs)], dtype=torch.float64)


def test_rotation_is_that_of_complex_numbers() -> None:
    x = some(2, 3, 11, 8)
    expected = turned(x, torch.arange(11)[:, None] * frequencies(4, 500.0))
    tables = layers.rope_cos_sin(11, 8, 500.0, CPU)
    assert tables[0].dtype == torch.float32
    torch.testing.assert_close(layers.apply_rotary_emb(x, tables), expected, rtol=0, atol=1e-5)
    assert layers.apply_rotary_emb(x.bfloat16(), tables).dtype == torch.bfloat16


def test_on_a_grid_half_of_the_pairs_turn_by_the_row_and_half_by_the_column() -> None:
    x = some(2, 3, 15, 16)
    angles = torch.empty(15, 8, dtype=torch.float64)
    for token in range(15):  # five rows of three, row by row
        angles[token, :4] = token // 3 * frequencies(4, 100.0)
        angles[token, 4:] = token % 3 * frequencies(4, 100.0)
    tables = layers.rope_cos_sin_2d(5, 3, 16, 100.0, CPU)
    assert tables[0].shape == tables[1].shape == (15, 16)
    assert tables[0].dtype == torch.float32
    torch.testing.assert_close(layers.apply_rotary_emb(x, tables), turned(x, angles), rtol=0, atol=1e-5)


def test_on_a_grid_scores_depend_on_the_distance_alone() -> None:
    """One query and one key everywhere: a step down, or to the right, is the same step wherever it is taken."""
    query, key = some(2, 1, 1, 8).expand(2, 1, 12, 8)
    rope = layers.rope_cos_sin_2d(3, 4, 8, 10.0, CPU)
    scores = (layers.apply_rotary_emb(query[None], rope) @ layers.apply_rotary_emb(key[None], rope).mT).view(3, 4, 3, 4)
    torch.testing.assert_close(scores[0, 1, 1, 3], scores[1, 0, 2, 2], rtol=0, atol=1e-5)
    assert (scores[0, 0, 0, 1] - scores[0, 0, 1, 0]).abs() > 1e-2


def test_what_is_checkpointed_keeps_its_inputs_alone() -> None:
    calls, kept = [], []
    x = some(4, 5).requires_grad_()

    def function(x: Tensor) -> Tensor:
        calls.append(x)
        return x.sin().exp().tanh()

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = layers.checkpointed(function, x)
    assert len(calls) == 1
    assert {tensor.data_ptr() for tensor in kept} <= {x.data_ptr()}
    (found,) = torch.autograd.grad(y.sum(), x)
    assert len(calls) == 2
    (expected,) = torch.autograd.grad(x.sin().exp().tanh().sum(), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
