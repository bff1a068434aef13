"""Latents: from shards written by hand to batches and back to pixels, and every value and damage that is refused."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.data import latents_shards
from {{cookiecutter.package_name}}.data.latents import Latents
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.train import build_data
from {{cookiecutter.package_name}}.utils import mix

from .latents_files import SCALE, SHAPE, SHIFT, change, written


def load(root: Path | str, **options: Any) -> Latents:
    return Latents(**{"name": "latents", "root": str(root), "batch_size": 2, **options})


def scaled(latents: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((latents - SHIFT) * SCALE).float()


def test_evaluation_sees_the_means(tmp_path):
    stored = written(tmp_path)
    data = load(tmp_path)
    assert data.sizes == {"train": 13, "val": 3, "test": 2}
    assert data.found == {"img_size": 8, "in_chans": 4, "num_classes": 3}
    assert data.class_names == ["cat", "dog", "eel"]
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        latents, labels = (torch.cat(part) for part in zip(*loader, strict=True))
        assert (latents.dtype, labels.dtype) == (torch.float32, torch.int64)
        torch.testing.assert_close(latents, scaled(stored[split][:, 0, 0]))
        assert labels.tolist() == [0, 1, 2][: len(labels)]
    assert len(data.originals()) == 13
    originals = [data.originals()[index] for index in range(13)]
    torch.testing.assert_close(torch.stack([latent for latent, _ in originals]), scaled(stored["train"][:, 0, 0]))
    assert [label for _, label in originals] == [number % 3 for number in range(13)]


def test_training_draws_from_the_distribution_of_image_or_mirror_image(tmp_path):
    stored = written(tmp_path, deviation=0.0)["train"]
    images, mirrored = scaled(stored[:, 0, 0]), scaled(stored[:, 1, 0])
    for hflip, expected in ((0.0, images), (1.0, mirrored)):
        dataset = load(tmp_path, hflip=hflip).dataset("train")
        torch.testing.assert_close(torch.stack([dataset[3, index][0] for index in range(13)]), expected)
    dataset = load(tmp_path, hflip=0.25).dataset("train")
    share = np.mean([torch.allclose(dataset[epoch, 0][0], mirrored[0], atol=1e-6) for epoch in range(1000)])
    assert abs(share - 0.25) < 0.05

    written(tmp_path, deviation=0.5)
    dataset = load(tmp_path, hflip=0.0).dataset("train")
    draws = torch.stack([dataset[epoch, 12][0] for epoch in range(1000)])
    noise = (draws - images[12]) / (0.5 * SCALE)
    assert (noise.mean(0).abs() < 5 * 1000**-0.5).all()
    torch.testing.assert_close(noise.var(), torch.tensor(1.0), rtol=0, atol=0.02)
    assert torch.corrcoef(noise.flatten(1).T).fill_diagonal_(0).abs().max() < 0.2
    own = torch.randn(SHAPE, generator=torch.Generator().manual_seed(mix(0, 5, 12)))
    assert abs((noise[5] * own).mean()) < 0.3  # not the noise that others draw from the same place


def test_latents_are_a_function_of_seed_epoch_and_index(tmp_path):
    written(tmp_path)

    def batches(epoch: int = 3, **options: Any) -> torch.Tensor:
        loader = load(tmp_path, **options).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return torch.cat([latents for latents, _ in loader])

    here = batches()
    assert here.shape == (12, *SHAPE)
    assert torch.equal(here, batches())
    assert torch.equal(here, batches(workers=2))
    assert torch.equal(here, batches(batch_size=3))
    assert not torch.isclose(here, batches(epoch=4)).all((1, 2, 3)).any()
    assert not torch.isclose(here, batches(seed=1)).all((1, 2, 3)).any()


def test_the_global_generators_are_left_alone(tmp_path):
    written(tmp_path)
    before = torch.random.get_rng_state()
    load(tmp_path).dataset("train")[3, 4]
    assert torch.equal(before, torch.random.get_rng_state())


def test_shards_are_mapped_and_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(latents_shards, "MAX_OPEN", 1)
    stored = written(tmp_path)["train"]
    latents = load(tmp_path).prepared.splits["train"].latents
    assert isinstance(latents._array(0), np.memmap)
    for index in (12, 0, 11, 7, 6, 12):
        assert np.array_equal(latents[index], stored[index])
    assert latents._array.cache_info().currsize == 1
    dataset = load(tmp_path).dataset("train")
    sent = pickle.dumps(dataset)
    assert len(sent) < 2000
    assert torch.equal(pickle.loads(sent)[1, 8][0], dataset[1, 8][0])


def test_the_config_builds_it(tmp_path):
    written(tmp_path)
    cfg = compose(["task=dit", "data=latents", f"data.root={tmp_path}", "data.total_batch_size=4", "trainer=cpu"])
    assert next(iter(build_data(cfg).train_dataloader()))[0].shape == (4, *SHAPE)
    assert (cfg.data.img_size, cfg.data.in_chans, cfg.data.num_classes) == (8, 4, 3)


def save(root: Path, shape: tuple[int, ...], dtype: str = "float16") -> None:
    np.save(root / "train-00001.npy", np.zeros(shape, dtype))


REFUSALS = [
    (lambda root: (root / "meta.json").unlink(), r"has no meta\.json; prepare\.py has not finished it"),
    (lambda root: [path.unlink() for path in root.iterdir()], r"has no meta\.json; python prepare\.py images="),
    (lambda root: (root / "meta.json").write_text("{"), r"meta\.json was not written by prepare\.py"),
    (lambda root: change(root, format=2), r"meta\.json: expected format 1, not 2; delete the folder"),
    (lambda root: change(root, splits={}), r"meta\.json was not written by prepare\.py: KeyError\('train'\)"),
    (lambda root: change(root, scaling_factor="x"), r"meta\.json was not written by prepare\.py"),
    (lambda root: change(root, shape=[4, 8]), r"meta\.json was not written by prepare\.py"),
    (lambda root: change(root, classes=["cat", "dog"]), r"train-labels\.npy has classes beyond the 2 of meta\.json"),
    (lambda root: change(root, shape=[4, 8, 4]), r"holds float16 \[7, 2, 2, 4, 8, 8\], and .* says float16 \[7,"),
    (lambda root: (root / "train-00001.npy").unlink(), r"train-00001\.npy is missing; delete the folder"),
    (lambda root: (root / "train-00001.npy").write_bytes(b""), r"train-00001\.npy is damaged \("),
    (lambda root: (root / "train-00001.npy").write_bytes(b"x" * 10000), r"train-00001\.npy is damaged \("),
    (lambda root: save(root, (5, 2, 2, 4, 8, 8), "float64"), r"holds float64 \[5, 2, 2, 4, 8, 8\], and meta\.json"),
    (lambda root: save(root, (4, 2, 2, 4, 8, 8)), r"holds float16 \[4, .* says float16 \[5, "),
    (lambda root: (root / "val-labels.npy").unlink(), r"val-labels\.npy is missing"),
    (lambda root: np.save(root / "val-labels.npy", np.zeros(4, np.int64)), r"holds int64 \[4\], and .* int64 \[3\]"),
]


@pytest.mark.parametrize(("damage", "words"), REFUSALS)
def test_shards_that_are_not_what_meta_says_are_refused(tmp_path, damage, words):
    written(tmp_path)
    damage(tmp_path)
    with pytest.raises(UsageError, match=words) as refusal:
        load(tmp_path)
    assert "\n" not in str(refusal.value)


def test_truncated_shards_are_refused(tmp_path):
    written(tmp_path)
    path = tmp_path / "train-00000.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"^.*train-00000\.npy is damaged \(.*\); delete the folder"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"root": ""}, "root is empty"),
        ({"root": "/no/such"}, "/no/such has no meta.json"),
        ({"name": "patents"}, "data.name=patents: expected latents"),
        ({"img_size": 16}, "data.img_size=16: the latents in ROOT have 8, and 0 takes that"),
        ({"in_chans": 3}, "data.in_chans=3: the latents in ROOT have 4, and 0 takes that"),
        ({"num_classes": 10}, "data.num_classes=10: the latents in ROOT have 3, and 0 takes that"),
        ({"hflip": 1.5}, "data.hflip=1.5: expected a probability, 0 to 1"),
        ({"batch_size": 0}, "data.batch_size=0: expected at least 1 image"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path, options, words):
    written(tmp_path)
    with pytest.raises(UsageError) as refusal:
        load(**{"root": tmp_path, **options})
    assert words.replace("ROOT", str(tmp_path)) in str(refusal.value)
    assert "\n" not in str(refusal.value)
