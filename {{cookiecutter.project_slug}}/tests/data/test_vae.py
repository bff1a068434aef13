"""From latents back to pixels, and autoencoders that are not there or cannot be loaded."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from {{cookiecutter.package_name}}.data.vae import VAE, pixels

from .latents_files import SCALE, SHAPE, SHIFT, change, save_vae, written

WEIGHTS = "diffusion_pytorch_model.safetensors"


def section(root: Path | str, vae: Path | str = "") -> dict[str, Any]:
    return {"root": str(root), "vae": str(vae), "in_chans": 4}


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def decoded(model: Any, latents: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return (model.decode(latents / SCALE + SHIFT).sample / 2 + 0.5).clamp(0, 1)


def test_pixels_are_what_the_autoencoder_decodes(tmp_path):
    written(tmp_path)
    model = save_vae(tmp_path / "autoencoder", scaling_factor=9.0)  # the data say how they were scaled
    other = save_vae(tmp_path / "other", layers_per_block=2, scaling_factor=SCALE, shift_factor=SHIFT)
    latents = draw(19, *SHAPE)
    found = pixels(section(tmp_path))(latents)
    assert (found.shape, found.dtype) == ((19, 3, 16, 16), torch.float32)
    torch.testing.assert_close(found, decoded(model, latents))
    bf16 = latents.bfloat16()[:1]
    torch.testing.assert_close(pixels(section(tmp_path))(bf16), decoded(model, bf16.float()))
    without_data = pixels(section("/no/such", tmp_path / "other"))
    torch.testing.assert_close(without_data(latents), decoded(other, latents))


def test_none_shows_channels(tmp_path):
    written(tmp_path)
    latents = torch.tensor([-4.0, -3.0, 0.0, 1.5, 3.0]).repeat(2, 4, 1, 1)
    expected = torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0])
    show = pixels(section(tmp_path, "none"))
    torch.testing.assert_close(show(latents), expected.repeat(2, 3, 1, 1))
    torch.testing.assert_close(show(latents[:, :2]), expected.repeat(2, 1, 1, 1))


def test_an_autoencoder_from_the_hub(tmp_path, monkeypatch):
    written(tmp_path)
    cache = tmp_path / "cache" / "models--someone--something"
    commit = "0" * 40
    model = save_vae(cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    for place in ("huggingface_hub.constants", "huggingface_hub.file_download.constants"):
        monkeypatch.setattr(f"{place}.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(f"{place}.HF_HUB_OFFLINE", True)
    change(tmp_path, vae="someone/something")
    torch.testing.assert_close(pixels(section(tmp_path))(draw(2, *SHAPE)), decoded(model, draw(2, *SHAPE)))
    with pytest.raises(ValueError, match=r"someone/else.*vae=none") as refusal:
        pixels(section(tmp_path, "someone/else"))
    assert "\n" not in str(refusal.value)


def test_loading_draws_no_random_numbers(tmp_path):
    save_vae(tmp_path)
    before = torch.random.get_rng_state()
    VAE(str(tmp_path))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_computes_in_fp32_whatever_the_default(tmp_path, dtype):
    model, latents = save_vae(tmp_path), draw(1, *SHAPE)
    torch.set_default_dtype(dtype)  # as bf16-true and 64-true do while a model runs
    try:
        found = VAE(str(tmp_path)).decode(latents)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, decoded(model, (latents - SHIFT) * SCALE))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_goes_where_the_latents_are_and_stays(tmp_path):
    save_vae(tmp_path)
    vae, latents = VAE(str(tmp_path)), draw(2, *SHAPE)
    here = vae.decode(latents)
    for place in ("cuda", "cpu"):
        there = vae.decode(latents.to(place))
        assert (there.device.type, vae.model.device.type) == ("cpu", "cuda")
        torch.testing.assert_close(there, here, rtol=0, atol=0.01)


def test_encoding_and_decoding_is_the_autoencoder_s_reconstruction(tmp_path):
    model, images = save_vae(tmp_path), draw(3, 3, 16, 16).clamp(-1, 1)
    with torch.no_grad():
        expected = model(images).sample / 2 + 0.5
    vae = VAE(str(tmp_path))
    torch.testing.assert_close(vae.decode(vae.encode(images)[:, 0]), expected.clamp(0, 1))


def configure(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    "damage",
    [
        lambda vae: (vae / "config.json").unlink(),
        lambda vae: (vae / "config.json").write_text("{"),
        lambda vae: (vae / WEIGHTS).unlink(),
        lambda vae: (vae / WEIGHTS).write_bytes(b"x" * 99),
        lambda vae: configure(vae, block_out_channels=[4, 4]),
        lambda vae: configure(vae, layers_per_block=2),
        lambda vae: configure(vae, norm_num_groups=3),
    ],
)
def test_autoencoders_that_cannot_be_loaded_are_refused_in_one_line(tmp_path, capfd, damage):
    save_vae(tmp_path / "vae")
    damage(tmp_path / "vae")
    capfd.readouterr()
    with pytest.raises(ValueError, match=str(tmp_path / "vae")) as refusal:
        VAE(str(tmp_path / "vae"))
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_autoencoders_of_other_latents_are_refused(tmp_path):
    save_vae(tmp_path, latent_channels=8)
    with pytest.raises(ValueError, match="8 channels"):
        pixels(section("/no/such", tmp_path))


def test_autoencoders_that_are_not_there_are_refused(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    written(tmp_path)
    wrong = [
        section("/no/such"),
        section(tmp_path),
        section(tmp_path, "no/such/folder"),
        section("", tmp_path / "empty"),
    ]
    for one in wrong:
        with pytest.raises(ValueError, match=r"vae=FOLDER.*vae=none"):
            pixels(one)
    monkeypatch.setitem(sys.modules, "diffusers", None)  # as if it were not installed
    with pytest.raises(ValueError, match="uv sync --extra latents"):
        pixels(section(tmp_path, "a/b"))
    pixels(section(tmp_path, "none"))


def test_an_autoencoder_in_a_pipeline(tmp_path):
    save_vae(tmp_path / "pipeline" / "vae")
    shutil.copytree(tmp_path / "pipeline" / "vae", tmp_path / "vae")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    assert VAE(str(tmp_path / "pipeline")).source == str(tmp_path / "pipeline" / "vae")
