"""Images: the real digits from disk to batch, augmentation, mixing, and every value that is refused."""

import itertools
import os
import pickle
import warnings
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from {{cookiecutter.package_name}}.data.images import Images
from {{cookiecutter.package_name}}.data.images_pixels import pixels
from {{cookiecutter.package_name}}.errors import UsageError

DIGITS: dict[str, Any] = {
    "name": "digits",
    "img_size": 8,
    "in_chans": 1,
    "num_classes": 10,
    "batch_size": 128,
    "val_fraction": 0.15,
    "test_fraction": 0.15,
    "augment": {"scale": [0.5, 1.0], "ratio": [0.9, 1.1]},
}
MIXUP = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}


def digits(**options) -> Images:
    return Images(**{**DIGITS, **options})


def batches(data: Images, epoch: int = 0, count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(itertools.islice(loader, count))


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(itertools.chain(*a), itertools.chain(*b), strict=True))


def test_digits_are_split_into_parts_that_stay():
    data = digits(seed=1)
    assert data.sizes == {"train": 1257, "val": 270, "test": 270}
    parts = {name: split.indices for name, split in data.splits.items()}
    assert sorted(np.concatenate(list(parts.values()))) == list(range(1797))
    per_class = np.bincount(load_digits().target)
    for part in (parts["val"], parts["test"]):
        assert np.abs(np.bincount(load_digits().target[part]) - 0.15 * per_class).max() <= 1
    assert len(data.train_dataloader()) == 1257 // 128
    again, other = digits(seed=2, workers=2).splits, digits(split_seed=1).splits
    assert all(np.array_equal(parts[name], again[name].indices) for name in parts)
    assert not np.array_equal(parts["test"], other["test"].indices)


def test_evaluated_digits_are_the_original_pixels():
    data = digits(mean=[0.3], std=[0.4])
    images, targets = (torch.cat(part) for part in zip(*data.test_dataloader(), strict=True))
    original = load_digits()
    chosen = data.splits["test"].indices
    assert images.shape == (270, 1, 8, 8)
    assert np.array_equal(targets, original.target[chosen])
    levels = (images * 0.4 + 0.3) * 16
    assert np.abs(levels[:, 0].numpy() - original.images[chosen]).max() < 0.04  # 16 levels in 8 bits
    assert np.array_equal(levels[:, 0].round().numpy(), original.images[chosen])


@pytest.mark.parametrize(("mean", "std"), [([0.3], [0.4]), ([0.3, 0.4, 0.5], [0.5, 0.4, 0.3])])
def test_images_are_turned_back_into_pixels(mean, std):
    data = digits(mean=mean, std=std, in_chans=len(mean))
    images = torch.stack([image for image, _ in (data.originals()[index] for index in range(40))])
    original = torch.tensor(load_digits().images[data.splits["train"].indices[:40]] / 16)
    found = pixels({"mean": mean, "std": std})(images)
    assert found.shape == (40, len(mean), 8, 8)
    assert (found - original[:, None]).abs().max() < 0.003  # 16 levels in 8 bits
    shifted = pixels({"mean": mean, "std": std})(torch.tensor([-9.0, 9.0], dtype=torch.bfloat16).view(2, 1, 1, 1))
    assert shifted.dtype == torch.float32
    assert shifted.unique().tolist() == [0, 1], "and what is out of range is clamped"


@pytest.mark.parametrize("mixup", [None, MIXUP], ids=["plain", "mixup"])
def test_pixels_are_a_function_of_seed_epoch_and_index(mixup):
    here = batches(digits(mixup=mixup), epoch=3)
    assert same(here, batches(digits(mixup=mixup), epoch=3))
    assert same(here, batches(digits(mixup=mixup, workers=2), epoch=3))
    assert not same(here, batches(digits(mixup=mixup), epoch=4))
    assert not same(here, batches(digits(mixup=mixup, seed=1), epoch=3))


def test_each_epoch_augments_an_image_anew():
    dataset = digits().train_dataloader().dataset
    plain = digits(augment=None).train_dataloader().dataset
    versions = [dataset[epoch, 0][0] for epoch in range(8)]
    assert len({version.numpy().tobytes() for version in versions}) > 4
    assert torch.equal(dataset[5, 0][0], versions[5])
    assert torch.equal(plain[0, 0][0], plain[1, 0][0])


def test_mixed_targets_are_probabilities():
    images, targets = next(iter(digits(mixup=MIXUP).train_dataloader()))
    plain_images, plain_targets = next(iter(digits().train_dataloader()))
    assert targets.shape == (128, 10)
    torch.testing.assert_close(targets.sum(1), torch.ones(128))
    share = targets.gather(1, plain_targets[:, None])
    partner = targets.gather(1, plain_targets.flip(0)[:, None])
    assert ((share + partner - 1).abs() < 1e-6)[plain_targets != plain_targets.flip(0)].all()
    assert not torch.equal(images, plain_images)


def test_grey_images_in_three_channels():
    images, _ = next(iter(digits(in_chans=3, mean=[0.3], std=[0.4]).test_dataloader()))
    assert images.shape[1:] == (3, 8, 8)
    assert torch.equal(images[:, 0], images[:, 2])


@pytest.mark.parametrize("in_chans", [1, 3])
def test_every_operation_of_randaugment_runs(in_chans):
    """At magnitude 10 its posterize keeps 0 bits, which Pillow 13 refuses; m9-mstd0.5 gets there once in 650 images."""
    augment = {"auto_augment": "rand-m10-inc1", "re_prob": 0.25, "hflip": 0.5, "color_jitter": 0.4}
    assert all(images.isfinite().all() for images, _ in batches(digits(in_chans=in_chans, augment=augment)))


def test_what_workers_need_can_be_sent_to_them():
    """Linux forks them up to Python 3.13; elsewhere and later they are sent a pickle."""
    loader = digits(augment={"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25}, mixup=MIXUP).train_dataloader()
    dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    keys = [(2, index) for index in range(4)]
    assert same([collate([dataset[key] for key in keys])], [loader.collate_fn([loader.dataset[key] for key in keys])])


def test_an_epoch_has_complete_optimiser_steps_only():
    data = digits()
    data.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.trainer.accumulate_grad_batches = 2
    assert len(data.train_dataloader()) == 8
    data.trainer.accumulate_grad_batches = 10
    with pytest.raises(UsageError, match="one step takes 1280 images, but there are 1257 to train on"):
        data.train_dataloader()


def test_too_few_images_to_train_on_can_be_evaluated():
    data = digits(batch_size=1258)
    data.prepare_data()
    assert sum(len(targets) for _, targets in data.test_dataloader()) == 270
    too_few = "data: one step takes 1258 images, but there are 1257 to train on; lower data.total_batch_size"
    for refused in (data.check_trainable, data.train_dataloader):
        with pytest.raises(UsageError, match=too_few):
            refused()
    digits(batch_size=1257).check_trainable()


def test_workers_are_no_more_than_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert digits(workers=10).train_dataloader().num_workers == 1
        assert digits(workers=0).train_dataloader().num_workers == 0


def test_no_validation_split_means_no_validation_loader():
    data = digits(val_fraction=0.0)
    assert data.sizes == {"train": 1527, "val": 0, "test": 270}
    assert data.val_dataloader() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "mnist"}, "data.name=mnist: choose from digits, fashion_mnist, cifar10, imagenet, folder"),
        ({"img_size": 0}, "data.img_size=0: expected at least 1 pixel"),
        ({"in_chans": 2}, "data.in_chans=2: expected 1 (grey) or 3 (colour)"),
        ({"num_classes": 7}, "data.num_classes=7: digits has 10, and 0 counts them"),
        ({"batch_size": 0}, "data.batch_size=0: expected at least 1 image"),
        ({"batch_size": 127, "mixup": MIXUP}, "data.batch_size=127: Mixup and CutMix pair images"),
        ({"mixup": {"mixup_alpha": -1}}, "data.mixup.mixup_alpha=-1: expected 0 or more"),
        ({"mixup": {"prob": 1.5}}, "data.mixup.prob=1.5: expected a probability, 0 to 1"),
        ({"mixup": {"cutmix_alpha": "x"}}, "data.mixup.cutmix_alpha=x: expected 0 or more"),
        ({"workers": -1}, "data.workers=-1: expected 0"),
        ({"workers": 10**6}, "data.workers=1000000: expected 0 (the main process loads) to 1024"),
        ({"split_seed": -1}, "data.split_seed=-1: expected a whole number from 0 to 4294967295"),
        ({"split_seed": 2**32}, "data.split_seed=4294967296: expected a whole number from 0 to 4294967295"),
        ({"mean": ["x"]}, "data.mean=['x']: expected 1 number(s)"),
        ({"mean": [float("nan")]}, "data.mean=[nan]: expected 1 number(s)"),
        ({"std": [[0.5]]}, "data.std=[[0.5]]: expected 1 number(s)"),
        ({"val_fraction": 1.0}, "data.val_fraction=1.0: expected 0 or more, and less than 1"),
        ({"test_fraction": -0.1}, "data.test_fraction=-0.1: expected 0 or more"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "= 1: that leaves nothing to train on"),
        ({"mean": [0.1, 0.2, 0.3]}, "data.mean=[0.1, 0.2, 0.3]: expected 1 number(s), as data.in_chans says"),
        ({"std": [0.0]}, "data.std=[0.0]: expected numbers above 0"),
        ({"interpolation": "best"}, "data.interpolation=best: choose from nearest, box, bilinear"),
        ({"crop_pct": 0.0}, "data.crop_pct=0.0: expected more than 0, and at most 1"),
        ({"augment": {"scale": [1.0, 0.8]}}, "data.augment.scale=[1.0, 0.8]: expected [smallest, largest]"),
        ({"augment": {"scale": [0.5, "x"]}}, "data.augment.scale=[0.5, 'x']: expected [smallest, largest]"),
        ({"augment": {"ratio": [0.5]}}, "data.augment.ratio=[0.5]: expected [smallest, largest]"),
        ({"augment": {"re_prob": "x"}}, "data.augment.re_prob=x: expected a probability, 0 to 1"),
        ({"augment": {"re_mode": "foo"}}, "data.augment.re_mode=foo: choose from const, rand, pixel"),
        ({"augment": {"color_jitter": -1.0}}, "data.augment.color_jitter=-1.0: expected a strength, 0 or more"),
        ({"augment": {"auto_augment": 3}}, "data.augment.auto_augment=3: expected the name of a policy"),
        ({"augment": {"hflip": 2}}, "data.augment.hflip=2: expected a probability, 0 to 1"),
        ({"augment": {"auto_augment": "best"}}, "data.augment: timm cannot make a transform of it"),
    ],
)
def test_values_that_cannot_be_are_refused(options, words):
    with pytest.raises(UsageError) as refusal:
        digits(**options)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
