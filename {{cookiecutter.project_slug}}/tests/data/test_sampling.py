"""Order and sharding: which samples a rank sees when."""

import itertools

import pytest

from {{cookiecutter.package_name}}.data.sampling import SeededSampler

LENGTH = 103


def indices(sampler: SeededSampler, epoch: int = 0) -> list[int]:
    sampler.set_epoch(epoch)
    pairs = list(sampler)
    assert {e for e, _ in pairs} <= {epoch}
    return [index for _, index in pairs]


def test_order_is_a_function_of_seed_and_epoch():
    first = indices(SeededSampler(LENGTH, seed=1, shuffle=True))
    assert sorted(first) == list(range(LENGTH))
    assert first == indices(SeededSampler(LENGTH, seed=1, shuffle=True))
    assert first != indices(SeededSampler(LENGTH, seed=1, shuffle=True), epoch=1)
    assert first != indices(SeededSampler(LENGTH, seed=2, shuffle=True))
    assert indices(SeededSampler(LENGTH)) == list(range(LENGTH))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_evaluation_deals_out_every_sample_once(world):
    shards = [SeededSampler(LENGTH, rank=rank, world=world) for rank in range(world)]
    dealt = [indices(shard) for shard in shards]
    assert sorted(itertools.chain(*dealt)) == list(range(LENGTH))
    assert [len(shard) for shard in shards] == [len(share) for share in dealt]


def test_a_step_sees_the_same_samples_on_any_number_of_ranks():
    """24 samples a step: one rank, four ranks of 6, or two ranks that accumulate three batches of 4."""
    seen = []
    for world, batch, accumulate in ((1, 24, 1), (4, 6, 1), (2, 4, 3)):
        multiple = batch * accumulate
        samplers = [SeededSampler(LENGTH, 3, True, rank, world, multiple) for rank in range(world)]
        shards = [indices(sampler, epoch=5) for sampler in samplers]
        share = 24 // world
        seen.append([{i for shard in shards for i in shard[at : at + share]} for at in range(0, len(shards[0]), share)])
    assert seen[0] == seen[1] == seen[2]
    assert [len(step) for step in seen[0]] == [24] * 4


def test_start_leaves_out_samples_of_one_pass_but_not_of_the_length():
    sampler = SeededSampler(LENGTH, shuffle=True)
    whole = indices(sampler)
    sampler.start = 40
    assert len(sampler) == LENGTH
    assert indices(sampler) == whole[40:]
    assert indices(sampler) == whole
