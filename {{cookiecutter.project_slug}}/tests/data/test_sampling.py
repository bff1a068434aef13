"""Order and sharding: which samples a rank sees when."""

from itertools import chain

import pytest

from {{cookiecutter.package_name}}.data.sampling import EvalSampler, TrainSampler

LENGTH, STEP, EPOCH = 103, 24, 96


def sequence(number: int, start: int = 0, seed: int = 3, rank: int = 0, world: int = 1) -> list[tuple[int, int]]:
    sampler = TrainSampler(LENGTH, seed, EPOCH, number, rank, world)
    sampler.start = start
    return list(sampler)


def test_an_epoch_sees_a_sample_once_in_an_order_of_its_own() -> None:
    first, second = sequence(2 * EPOCH)[:EPOCH], sequence(2 * EPOCH)[EPOCH:]
    assert {epoch for epoch, _ in first} == {0}
    assert {epoch for epoch, _ in second} == {1}
    for pairs in (first, second):
        assert len({index for _, index in pairs}) == EPOCH
    assert [index for _, index in first] != [index for _, index in second]
    assert sequence(EPOCH, seed=4) != first


@pytest.mark.parametrize("start", [STEP, EPOCH, EPOCH + 2 * STEP, 10 * EPOCH])
def test_it_goes_on_from_any_step(start: int) -> None:
    assert sequence(2 * EPOCH, start) == sequence(start + 2 * EPOCH)[start:]


@pytest.mark.parametrize("world", [2, 4])
def test_a_step_sees_the_same_samples_on_any_number_of_ranks(world: int) -> None:
    alone, share = sequence(8 * STEP, EPOCH), STEP // world
    ranks = [sequence(8 * share, EPOCH, rank=rank, world=world) for rank in range(world)]
    for step in range(8):
        together = chain.from_iterable(pairs[step * share : (step + 1) * share] for pairs in ranks)
        assert sorted(together) == sorted(alone[step * STEP : (step + 1) * STEP])


@pytest.mark.parametrize("world", [1, 2, 4])
def test_evaluation_deals_out_every_sample_once(world: int) -> None:
    shards = [EvalSampler(LENGTH, rank, world) for rank in range(world)]
    assert sorted(index for shard in shards for _, index in shard) == list(range(LENGTH))
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]
