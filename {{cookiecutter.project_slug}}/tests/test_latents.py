"""Latents: from shards written by hand to batches and back to pixels, and every value and damage that is refused."""

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from {{cookiecutter.package_name}}.build import build_data
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.data import latents_shards, latents_vae
from {{cookiecutter.package_name}}.data.latents import Latents
from {{cookiecutter.package_name}}.data.latents_pixels import Decoder, identity, pixels, shows_pixels
from {{cookiecutter.package_name}}.data.latents_vae import VAE
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.seeding import mix

from .latents_vae import save_vae

LENGTHS = {"train": [7, 5, 1], "val": [3], "test": [2]}
SHAPE = (4, 8, 8)
SCALE, SHIFT = 0.5, 0.1
WEIGHTS = "diffusion_pytorch_model.safetensors"
LOAD = "diffusers cannot load an AutoencoderKL from it: "
OTHER_WAYS = "data.vae=FOLDER, or a name on the hub, decodes them, and data.vae=none shows channels instead"


def written(root: Path, deviation: float = 0.5) -> dict[str, np.ndarray]:
    """Makes a folder of shards by hand, and returns what is in each split (N, 2, 2, C, h, w)."""
    random = np.random.default_rng(0)
    meta: dict[str, Any] = {"format": 1, "shape": SHAPE, "scaling_factor": SCALE, "shift_factor": SHIFT, "splits": {}}
    meta |= {"vae": str(root / "autoencoder"), "img_size": 16, "classes": ["cat", "dog", "eel"]}
    everything = {}
    for split, lengths in LENGTHS.items():
        arrays = [random.normal(size=(length, 2, 2, *SHAPE)).astype(np.float16) for length in lengths]
        for number, array in enumerate(arrays):
            array[:, :, 1] = deviation
            np.save(root / f"{split}-{number:05}.npy", array)
        labels = np.arange(sum(lengths), dtype=np.int64) % 3
        np.save(root / f"{split}-labels.npy", labels)
        shards = [{"file": f"{split}-{number:05}.npy", "images": length} for number, length in enumerate(lengths)]
        meta["splits"][split] = {"labels": f"{split}-labels.npy", "shards": shards}
        everything[split] = np.concatenate(arrays).astype(np.float64)
    (root / "meta.json").write_text(json.dumps(meta))
    return everything


def load(root: Path | str, **options: Any) -> Latents:
    return Latents(**{"name": "latents", "root": str(root), "batch_size": 2, **options})


def scaled(latents: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((latents - SHIFT) * SCALE).float()


def change(root: Path, **values: Any) -> None:
    meta = json.loads((root / "meta.json").read_text())
    (root / "meta.json").write_text(json.dumps(meta | values))


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
    (lambda root: (root / "meta.json").unlink(), r"has no meta\.json; prepare_latents\.py has not finished it"),
    (lambda root: [path.unlink() for path in root.iterdir()], r"has no meta\.json; python prepare_latents\.py images="),
    (lambda root: (root / "meta.json").write_text("{"), r"meta\.json was not written by prepare_latents\.py"),
    (lambda root: change(root, format=2), r"meta\.json: expected format 1, not 2; delete the folder"),
    (lambda root: change(root, splits={}), r"meta\.json was not written by prepare_latents\.py: KeyError\('train'\)"),
    (lambda root: change(root, scaling_factor="x"), r"meta\.json was not written by prepare_latents\.py"),
    (lambda root: change(root, shape=[4, 8]), r"meta\.json was not written by prepare_latents\.py"),
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
        ({"root": ""}, "data.root is not set: data.root=FOLDER names a folder with meta.json"),
        ({"root": "/no/such"}, "data.root=/no/such has no meta.json"),
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


def decoded(net: Any, latents: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return (net.decode(latents / SCALE + SHIFT).sample / 2 + 0.5).clamp(0, 1)


def test_pixels_are_what_the_autoencoder_decodes(tmp_path):
    written(tmp_path)
    net = save_vae(tmp_path / "autoencoder", scaling_factor=9.0)  # the data say how they were scaled
    other = save_vae(tmp_path / "other", layers_per_block=2, scaling_factor=SCALE, shift_factor=SHIFT)
    latents = torch.randn(19, *SHAPE, generator=torch.Generator().manual_seed(0))
    section = {"root": str(tmp_path), "vae": "", "in_chans": 4}
    found = pixels(section)(latents)
    assert (found.shape, found.dtype) == ((19, 3, 16, 16), torch.float32)
    torch.testing.assert_close(found, decoded(net, latents))
    torch.testing.assert_close(pixels(section)(latents.bfloat16()[:1]), decoded(net, latents.bfloat16().float()[:1]))
    # the data may be elsewhere
    moved = pixels({**section, "root": "/no/such", "vae": str(tmp_path / "other")})
    torch.testing.assert_close(moved(latents), decoded(other, latents))


def test_only_with_none_channels_are_shown(tmp_path):
    written(tmp_path)
    latents = torch.tensor([-4.0, -3.0, 0.0, 1.5, 3.0]).repeat(2, 4, 1, 1)
    expected = torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0])
    section = {"root": str(tmp_path), "vae": "none", "in_chans": 4}
    assert not shows_pixels(section)
    torch.testing.assert_close(pixels(section)(latents), expected.repeat(2, 3, 1, 1))
    torch.testing.assert_close(pixels(section)(latents[:, :2]), expected.repeat(2, 1, 1, 1))
    save_vae(tmp_path / "autoencoder")
    assert pixels(section)(latents).shape == (2, 3, 1, 5)
    assert shows_pixels(section | {"vae": ""})


def test_an_autoencoder_from_the_hub_is_that_of_its_cache(tmp_path, monkeypatch):
    """What prepare_latents.py was given by name decodes too."""
    written(tmp_path)
    kept = tmp_path / "cache" / "models--someone--something"
    commit = "0" * 40
    net = save_vae(kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    for place in ("huggingface_hub.constants", "huggingface_hub.file_download.constants"):
        monkeypatch.setattr(f"{place}.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(f"{place}.HF_HUB_OFFLINE", True)
    section = {"root": str(tmp_path), "vae": "", "in_chans": 4}
    change(tmp_path, vae="someone/something")
    latents = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pixels(section)(latents), decoded(net, latents))
    change(tmp_path, vae="someone/else")
    decode = pixels(section)
    with pytest.raises(UsageError, match=rf"meta\.json: vae=someone/else: {LOAD}.*; {OTHER_WAYS}$") as refusal:
        decode(latents)
    assert "\n" not in str(refusal.value)


def test_it_is_loaded_when_it_is_first_used_and_once(tmp_path, monkeypatch):
    written(tmp_path)
    save_vae(tmp_path / "autoencoder")
    load_vae = Mock(wraps=latents_vae._load)
    monkeypatch.setattr(latents_vae, "_load", load_vae)
    decode = pixels({"root": str(tmp_path), "vae": "", "in_chans": 4})
    assert isinstance(decode, Decoder)
    assert not load_vae.called
    before = torch.random.get_rng_state()
    with torch.inference_mode():  # as in a validation
        decode(torch.zeros(1, *SHAPE))
    assert torch.equal(before, torch.random.get_rng_state())
    assert decode(torch.zeros(2, *SHAPE)).shape == (2, 3, 16, 16)
    assert decode(torch.zeros(0, *SHAPE)).shape == (0, 3, 16, 16)
    assert load_vae.call_count == 1
    assert not any(weight.is_inference() for weight in decode.vae.net.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_keeps_its_precision_whatever_the_trainer_s(tmp_path, dtype):
    net = save_vae(tmp_path)
    latents = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.set_default_dtype(dtype)  # what bf16-true and 64-true do while a net runs
    try:
        found = VAE(str(tmp_path), "vae").decode(latents)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, decoded(net, (latents - SHIFT) * SCALE))


def test_few_are_decoded_at_a_time(tmp_path, monkeypatch):
    net = save_vae(tmp_path)
    latents = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    expected = decoded(net, (latents - SHIFT) * SCALE)
    vae, sizes = VAE(str(tmp_path), "vae"), []
    vae.net.decoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    for together, parts in ((2 * 16 * 16, [2, 2, 1]), (1, [1] * 5), (10**6, [5])):
        monkeypatch.setattr(latents_vae, "AT_A_TIME", together)
        sizes.clear()
        torch.testing.assert_close(vae.decode(latents), expected)
        assert sizes == parts


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")
def test_it_goes_where_the_latents_are_and_stays(tmp_path):
    save_vae(tmp_path)
    vae, latents = VAE(str(tmp_path), "vae"), torch.randn(2, *SHAPE)
    here = vae.decode(latents)
    for place in ("cuda", "cpu"):
        there = vae.decode(latents.to(place))
        assert (there.device.type, vae.net.device.type) == ("cpu", "cuda")
        torch.testing.assert_close(there, here, rtol=0, atol=0.01)


def test_identity_changes_with_the_data_and_with_the_autoencoder(tmp_path):
    written(tmp_path)
    for name in ("autoencoder", "other", "pipeline/vae"):
        save_vae(tmp_path / name)
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    section = {"root": str(tmp_path), "vae": "", "in_chans": 4}
    sections = [section | {"vae": str(tmp_path / name)} for name in ("other", "pipeline")]
    sections += [section, section | {"vae": "none"}, section | {"vae": "someone/something"}]

    def identities() -> list[str]:
        return [identity(one) for one in sections]

    first = identities()
    assert first == identities()
    assert len(set(first)) == len(sections)
    assert identity(section | {"vae": str(tmp_path / "autoencoder")}) == first[2]
    configured(tmp_path / "other", scaling_factor=0.7)
    configured(tmp_path / "pipeline" / "vae", scaling_factor=0.7)
    then = identities()
    assert [one != other for one, other in zip(first, then, strict=True)] == [True, True, False, False, False]
    change(tmp_path, classes=["cat", "dog", "emu"])
    assert not set(then) & set(identities())
    assert identity(section | {"root": "/no/such", "vae": "none"}) not in then


def test_what_was_prepared_comes_back(tmp_path):
    """An autoencoder that loses nothing would show the image: here the two ways to its reconstruction agree."""
    net = save_vae(tmp_path / "autoencoder")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = net(images).sample / 2 + 0.5
    vae = VAE(str(tmp_path / "autoencoder"), "vae")
    torch.testing.assert_close(vae.decode(vae.encode(images)[:, 0]), expected.clamp(0, 1))


def configured(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda vae: (vae / "config.json").unlink(), r"the folder has no config\.json; expected"),
        (lambda vae: (vae / "config.json").write_text("{"), LOAD + r".*not a valid JSON"),
        (lambda vae: (vae / WEIGHTS).unlink(), LOAD + r"Error no file named"),
        (lambda vae: (vae / WEIGHTS).write_bytes(b"x" * 99), LOAD + r"Unable to load weights"),
        (lambda vae: configured(vae, block_out_channels=[4, 4]), LOAD + r".*size mismatch"),
        (lambda vae: configured(vae, layers_per_block=2), r"\d+ tensors of an AutoencoderKL are missing, such as \['"),
        (lambda vae: configured(vae, norm_num_groups=3), LOAD + r".*divisible"),
    ],
)
def test_autoencoders_that_cannot_be_loaded_are_refused(tmp_path, capfd, damage, words):
    save_vae(tmp_path / "vae")
    damage(tmp_path / "vae")
    capfd.readouterr()
    with pytest.raises(UsageError, match=rf"^data\.vae=.*vae: {words}") as refusal:
        VAE(str(tmp_path / "vae"), "data.vae")
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_autoencoders_of_other_latents_are_refused(tmp_path):
    save_vae(tmp_path / "vae", latent_channels=8)
    decode = pixels({"root": "/no/such", "vae": str(tmp_path / "vae"), "in_chans": 4})
    words = r"^data\.vae=.*vae: it decodes 8 channels, and data\.in_chans=4; "
    with pytest.raises(UsageError, match=words + OTHER_WAYS):
        decode(torch.zeros(1, *SHAPE))


def test_autoencoders_that_are_not_there_are_refused_before_they_are_used(tmp_path, monkeypatch):
    section = {"root": "/no/such", "vae": "", "in_chans": 4}
    absent = r"^data\.vae is not set, and /no/such/meta\.json, which says what made the latents, is not there; "
    with pytest.raises(UsageError, match=absent + OTHER_WAYS):
        pixels(section)
    with pytest.raises(UsageError, match=r"^vae is not set, .*; vae=FOLDER, or .*, and vae=none shows channels"):
        pixels(section, key="vae")
    with pytest.raises(UsageError, match=r"^data\.vae=no/such/folder: there is no such folder; .*; " + OTHER_WAYS):
        pixels(section | {"vae": "no/such/folder"})
    with pytest.raises(UsageError, match=r"^data\.vae=.*: the folder has no config\.json; .*; " + OTHER_WAYS):
        pixels(section | {"vae": str(tmp_path)})
    written(tmp_path)
    with pytest.raises(UsageError, match=r"^/.*/meta\.json: vae=/.*/autoencoder: there is no .*; " + OTHER_WAYS):
        pixels(section | {"root": str(tmp_path)})
    monkeypatch.setitem(sys.modules, "diffusers", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"^data\.vae=a/b needs the package diffusers: uv sync .*; " + OTHER_WAYS):
        pixels(section | {"vae": "a/b"})
    pixels(section | {"vae": "none"})


def test_an_autoencoder_in_a_pipeline(tmp_path):
    save_vae(tmp_path / "pipeline" / "vae")
    shutil.copytree(tmp_path / "pipeline" / "vae", tmp_path / "vae")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    sums = {VAE(str(tmp_path / name), "vae").checksum() for name in ("pipeline", "vae")}
    assert len(sums) == 1
