"""Latents: from shards written by hand to batches, and folders that are damaged."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.data.latents import Latents, open_shard
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
    originals = [data.originals()[index] for index in range(13)]
    torch.testing.assert_close(torch.stack([latent for latent, _ in originals]), scaled(stored["train"][:, 0, 0]))
    assert [label for _, label in originals] == [number % 3 for number in range(13)]


def test_training_draws_the_image_or_its_mirror_image(tmp_path):
    stored = written(tmp_path, deviation=0.0)["train"]
    images, mirrored = scaled(stored[:, 0, 0]), scaled(stored[:, 1, 0])
    for hflip, expected in ((0.0, images), (1.0, mirrored)):
        dataset = load(tmp_path, hflip=hflip).dataset("train")
        torch.testing.assert_close(torch.stack([dataset[3, index][0] for index in range(13)]), expected)
    dataset = load(tmp_path, hflip=0.25).dataset("train")
    share = np.mean([torch.allclose(dataset[epoch, 0][0], mirrored[0], atol=1e-6) for epoch in range(1000)])
    assert abs(share - 0.25) < 0.05


def test_training_draws_from_the_distribution(tmp_path):
    mean = scaled(written(tmp_path, deviation=0.5)["train"][:, 0, 0])[12]
    dataset = load(tmp_path, hflip=0.0).dataset("train")
    noise = (torch.stack([dataset[epoch, 12][0] for epoch in range(1000)]) - mean) / (0.5 * SCALE)
    assert (noise.mean(0).abs() < 5 * 1000**-0.5).all()
    torch.testing.assert_close(noise.var(), torch.tensor(1.0), rtol=0, atol=0.02)
    assert torch.corrcoef(noise.flatten(1).T).fill_diagonal_(0).abs().max() < 0.2
    objective = torch.randn(SHAPE, generator=torch.Generator().manual_seed(mix(0, 5, 12)))
    assert abs((noise[5] * objective).mean()) < 0.3  # the noise of training's objective is another one


def test_latents_are_a_function_of_seed_epoch_and_index(tmp_path):
    written(tmp_path)

    def batches(epoch: int = 3, workers: int = 0, **options: Any) -> torch.Tensor:
        dataset = load(tmp_path, **options).dataset("train")
        loader = DataLoader(dataset, 2, sampler=[(epoch, index) for index in range(13)], num_workers=workers)
        return torch.cat([latents for latents, _ in loader])

    here = batches()
    assert torch.equal(here, batches())
    assert torch.equal(here, batches(workers=2))
    assert not torch.isclose(here, batches(epoch=4)).all((1, 2, 3)).any()
    assert not torch.isclose(here, batches(seed=1)).all((1, 2, 3)).any()
    state = torch.random.get_rng_state()
    load(tmp_path).dataset("train")[3, 4]
    assert torch.equal(state, torch.random.get_rng_state())  # the global generator is left alone


def test_shards_are_mapped_and_never_sent_to_workers(tmp_path):
    stored = written(tmp_path)["train"]
    data = load(tmp_path)
    assert isinstance(open_shard(data.splits["train"].files[0]), np.memmap)
    for index in (12, 0, 11, 7, 6, 12):
        assert np.array_equal(data.splits["train"].read(index), stored[index])
    dataset = data.dataset("train")
    sent = pickle.dumps(dataset)
    assert len(sent) < 2000
    assert torch.equal(pickle.loads(sent)[1, 8][0], dataset[1, 8][0])


def test_the_config_builds_it(tmp_path):
    written(tmp_path)
    cfg = compose(["task=dit", "data=latents", f"data.root={tmp_path}", "data.total_batch_size=4", "trainer=cpu"])
    assert next(iter(build_data(cfg).train_dataloader()))[0].shape == (4, *SHAPE)
    assert (cfg.data.img_size, cfg.data.in_chans, cfg.data.num_classes) == (8, 4, 3)


def shard(shape: tuple[int, ...], dtype: str = "float16") -> Any:
    return lambda root: np.save(root / "train-00001.npy", np.zeros(shape, dtype))


def cut(root: Path) -> None:
    path = root / "train-00001.npy"
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = [
    ("meta.json", lambda root: (root / "meta.json").unlink()),
    ("meta.json", lambda root: [path.unlink() for path in root.iterdir()]),
    ("meta.json", lambda root: (root / "meta.json").write_text("{")),
    ("format", lambda root: change(root, format=2)),
    ("meta.json", lambda root: change(root, splits={})),
    ("meta.json", lambda root: change(root, scaling_factor="x")),
    ("meta.json", lambda root: change(root, shape=[4, 8])),
    ("train-labels.npy", lambda root: change(root, classes=["cat", "dog"])),
    ("train-00000.npy", lambda root: change(root, shape=[4, 8, 4])),
    ("train-00001.npy", lambda root: (root / "train-00001.npy").unlink()),
    ("train-00001.npy", lambda root: (root / "train-00001.npy").write_bytes(b"")),
    ("train-00001.npy", lambda root: (root / "train-00001.npy").write_bytes(b"x" * 10000)),
    ("train-00001.npy", cut),
    ("float64", shard((5, 2, 2, 4, 8, 8), "float64")),
    ("train-00001.npy", shard((4, 2, 2, 4, 8, 8))),
    ("val-labels.npy", lambda root: (root / "val-labels.npy").unlink()),
    ("val-labels.npy", lambda root: np.save(root / "val-labels.npy", np.zeros(4, np.int64))),
]


@pytest.mark.parametrize(("words", "damage"), DAMAGES)
def test_damaged_folders_are_refused_in_one_line(tmp_path, words, damage):
    written(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=words) as refusal:
        load(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("options", [{"root": "/no/such"}, {"img_size": 16}, {"in_chans": 3}, {"num_classes": 10}])
def test_other_latents_than_the_config_says_are_refused(tmp_path, options):
    written(tmp_path)
    with pytest.raises(ValueError, match=str(*options.values())):
        load(**{"root": tmp_path, **options})
