"""From latents back to pixels: the autoencoder that decodes them, and every damage that is refused."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from {{cookiecutter.package_name}}.data import latents_vae
from {{cookiecutter.package_name}}.data.latents_pixels import Decoder, identity, pixels, shows_pixels
from {{cookiecutter.package_name}}.data.latents_vae import VAE
from {{cookiecutter.package_name}}.errors import UsageError

from .latents_files import SCALE, SHAPE, SHIFT, change, save_vae, written

WEIGHTS = "diffusion_pytorch_model.safetensors"
LOAD = "diffusers cannot load an AutoencoderKL from it: "
OTHER_WAYS = "data.vae=FOLDER, or a name on the hub, decodes them, and data.vae=none shows channels instead"


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
    """What prepare.py was given by name decodes too."""
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
