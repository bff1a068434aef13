"""Corruptions against other sources: torchvision, scipy, colorsys, sums in float64, and the benchmark's own sizes."""

import colorsys
import statistics
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator
from torchvision.transforms.v2.functional import adjust_contrast

from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.data import images
from {{cookiecutter.package_name}}.tools.robustness import images as shift

EVERY = range(1, 6)


@pytest.fixture(scope="module")
def section():
    section = plain(compose(["data=digits"]))["data"]
    section.pop("module"), section.pop("total_batch_size")
    return {**section, "batch_size": 32}


@pytest.fixture(scope="module")
def digits(section):
    return images.Images(**section)


def random(seed=0):
    return Generator().manual_seed(seed)


def picture(channels=3, side=16):
    return torch.rand(channels, side, side, generator=random(1))


def pixels(data, index, section):
    return data.test_dataloader().dataset[index][0] * section["std"][0] + section["mean"][0]


@pytest.mark.parametrize("strength", EVERY)
def test_noise_has_the_moments_of_its_law(strength):
    grey = torch.full((1, 400, 400), 0.5)
    amount = {kind: shift.STRENGTHS[kind][strength - 1] for kind in shift.KINDS}
    if strength < 3:  # what hardly meets the ends of the range
        normal = shift.corrupted(grey, "gaussian_noise", strength, random())
        assert normal.mean().item() == pytest.approx(0.5, abs=0.002)
        assert normal.std().item() == pytest.approx(amount["gaussian_noise"], rel=0.02)
        shot = shift.corrupted(grey, "shot_noise", strength, random())
        assert shot.mean().item() == pytest.approx(0.5, abs=0.002)
        assert shot.var().item() == pytest.approx(0.5 / amount["shot_noise"], rel=0.03)
    impulse = shift.corrupted(grey, "impulse_noise", strength, random())
    for level in (0.0, 1.0):
        assert (impulse == level).float().mean().item() == pytest.approx(amount["impulse_noise"] / 2, rel=0.05)


def test_contrast_is_torchvisions_on_grey_images():
    grey = picture(1)
    for strength, factor in zip(EVERY, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True):
        torch.testing.assert_close(shift.corrupted(grey, "contrast", strength, random()), adjust_contrast(grey, factor))


def test_brightness_is_added_to_the_value_of_hsv():
    colours = picture(3, 6)
    colours[:, 0, 0] = 0
    for strength, amount in zip(EVERY, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        ours = shift.corrupted(colours, "brightness", strength, random())
        for y, x in np.ndindex(6, 6):
            hue, saturation, value = colorsys.rgb_to_hsv(*colours[:, y, x].tolist())
            expected = colorsys.hsv_to_rgb(hue, saturation, min(value + amount, 1))
            assert ours[:, y, x].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("side", [8, 32, 224])
def test_blur_is_scipys(side):
    grey = picture(1, side)
    sigma = shift.blur_of(6, side)
    radius = min(int(np.ceil(4 * sigma)), side - 1)
    blur = import_module("scipy.ndimage").gaussian_filter  # which ships no types
    expected = blur(grey[0].double().numpy(), sigma, mode="mirror", radius=radius)
    ours = shift.corrupted(grey, "gaussian_blur", 5, random())
    torch.testing.assert_close(ours[0].double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_lengths_are_the_benchmarks_at_its_size_and_shrink_with_the_image():
    assert [int(224 * shift.share_of(share, 224)) for share in shift.STRENGTHS["pixelate"]] == [134, 112, 89, 67, 56]
    assert [shift.blur_of(sigma, 224) for sigma in shift.STRENGTHS["gaussian_blur"]] == pytest.approx([1, 2, 3, 4, 6])
    # A quarter of 224 pixels is 56: 0.7438 of the logarithm, of 8 pixels 8 ** 0.7438 = 4.70.
    assert [int(8 * shift.share_of(share, 8)) for share in shift.STRENGTHS["pixelate"]] == [6, 6, 5, 5, 4]
    assert 8 * shift.share_of(0.25, 8) == pytest.approx(4.696, abs=0.001)
    blurs = [shift.blur_of(6, side) for side in (1, 8, 32, 96, 224)]
    assert blurs == sorted(blurs)
    assert blurs[0] == 0, "one pixel has nothing to lose"


@pytest.mark.parametrize("kind", shift.KINDS)
def test_each_strength_is_further_from_the_images(digits, section, kind):
    far = []
    for strength in EVERY:
        shown = shift.shifted(digits, section, kind, strength)
        pairs = [(pixels(shown, n, section), pixels(digits, n, section)) for n in range(40)]
        assert all(one.min() >= -1e-6 and one.max() <= 1 + 1e-6 for one, _ in pairs)
        far.append(statistics.fmean((one - other).square().mean().item() for one, other in pairs))
    assert far == sorted(far)
    assert far[0] > 0
    assert far[4] > 1.5 * far[0]


def test_noise_follows_from_the_image_alone(section):
    """Not from the run's seed, the batch it is in, or what was drawn before."""
    one, other = (
        shift.shifted(images.Images(**{**section, "batch_size": size}, seed=seed), section, "shot_noise", 3)
        for size, seed in ((32, 0), (7, 1))
    )
    batches = [torch.cat([batch for batch, _ in data.test_dataloader()]) for data in (one, other)]
    assert batches[0].equal(batches[1])
    assert batches[0][5].equal(one.test_dataloader().dataset[0, 5][0])
    clean = one.dataset("test")
    noise = [batches[0][n] - clean[n][0] for n in (0, 1)]
    assert not noise[0].equal(noise[1])


def test_pixelate_takes_the_means_of_boxes():
    image = picture(3, 224)
    boxes = image.double().numpy().reshape(3, 56, 4, 56, 4).mean((2, 4))
    expected = torch.from_numpy(np.kron(boxes, np.ones((1, 4, 4))))
    ours = shift.corrupted(image, "pixelate", 5, random())
    torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=0)
    # three boxes of 4/3 pixels: the middle ones lie in two of them, by one and two thirds
    row = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, 4, 4)
    assert shift.pixelated(row, 3)[0, 0].tolist() == pytest.approx([0.75, 0.25, 0, 0])


def test_images_are_corrupted_before_normalisation():
    for kind in shift.KINDS:
        images: Any = [((picture(3, 12) - 0.4) / 0.2, 1)]
        shown, target = shift.CorruptedSet(images, kind, 1, mean=[0.4], std=[0.2])[0]
        expected = shift.corrupted(picture(3, 12), kind, 1, random(shift.mix(0, shift.KINDS.index(kind))))
        torch.testing.assert_close(shown * 0.2 + 0.4, expected)
        assert target == 1
