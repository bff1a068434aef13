import itertools
import random

import numpy as np
import pytest
import torch

from {{cookiecutter.package_name}}.utils import mix, seed_all


@pytest.mark.parametrize(
    ("parts", "digest"),  # of `printf '%s' 1,2,3 | b2sum -l 32`
    [((0,), "34069224"), ((0, 0), "6c986b81"), ((1, 2, 3), "e1a2c8b6"), ((-1, 7), "93810957"), ((10**19,), "92ebd0c8")],
)
def test_mix_is_the_same_everywhere_and_for_ever(parts, digest):
    assert mix(*parts) == int.from_bytes(bytes.fromhex(digest), "little")


def test_mix_tells_all_neighbours_apart():
    pairs, triples = itertools.product(range(20), repeat=2), itertools.product(range(-7, 7), repeat=3)
    parts = [*pairs, *triples, (1, 23), (12, 3), (123,)]
    seeds = {mix(*some) for some in parts}
    assert len(seeds) == len(set(parts))
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_mix_takes_integers_of_any_library_and_nothing_else():
    assert mix(np.int64(3), torch.tensor(4)) == mix(3, 4)
    with pytest.raises(TypeError):
        mix(0.5)  # type: ignore[arg-type]


def draws() -> tuple[list[int], list[int], list[int]]:
    return (
        [random.getrandbits(32) for _ in range(64)],
        np.random.randint(0, 2**32, 64, dtype=np.uint32).tolist(),  # noqa: NPY002
        torch.randint(2**32, (64,)).tolist(),
    )


def test_seed_all_repeats_what_each_library_draws():
    seed_all(1, 2)
    first = draws()
    seed_all(1, 3)
    other = draws()
    seed_all(1, 2)
    assert draws() == first
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_seed_all_gives_each_library_its_own_numbers():
    seed_all(1, 2)
    python, numpy, pytorch = map(set, draws())
    assert python.isdisjoint(numpy)
    assert python.isdisjoint(pytorch)
    assert numpy.isdisjoint(pytorch)
