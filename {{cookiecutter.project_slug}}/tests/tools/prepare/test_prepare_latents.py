"""prepare.py images=: from image folders to shards of latents, however often it is stopped."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

import prepare as script
from {{cookiecutter.package_name}} import utils
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.data.latents import Latents
from {{cookiecutter.package_name}}.data.vae import VAE
from {{cookiecutter.package_name}}.tools.prepare.latents import OPTIONS

from ...data.latents_files import save_vae
from ...runs import ROOT

SIDE = 16


def save_images(folder: Path, count: int) -> list[Path]:
    """Images of SIDE x SIDE pixels in two classes, which come back as they are from a PNG."""
    random = np.random.default_rng(len(folder.name))
    files = [folder / ("cat", "dog")[number % 2] / f"{number:03}.png" for number in range(count)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(file)
    return sorted(files)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder")
    save_vae(folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    save_images(tmp_path / "images" / "train", 11)
    save_images(tmp_path / "images" / "val", 4)
    return tmp_path / "images"


def make(images: Path | str, out: Path | str, vae: Path | str, **options: Any) -> dict[str, Any]:
    """Runs prepare.py, and returns the contents of meta.json."""
    given = {"img_size": SIDE, "batch_size": 2, "workers": 1, "device": "cpu", "shard": 5} | options
    script.main([f"{key}={value}" for key, value in {"images": images, "out": out, "vae": vae, **given}.items()])
    return json.loads((Path(out) / "meta.json").read_text())


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_shards_hold_the_distributions_of_images_and_mirror_images(images, tmp_path, vae):
    meta = make(images, tmp_path / "out", vae)
    assert {"format": 1, "shape": [4, 8, 8], "scaling_factor": 0.5, "shift_factor": 0.1}.items() <= meta.items()
    assert {"vae": str(vae), "img_size": SIDE, "classes": ["cat", "dog"]}.items() <= meta.items()
    assert [shard["images"] for shard in meta["splits"]["train"]["shards"]] == [5, 5, 1]
    assert meta["splits"]["test"] == meta["splits"]["val"]
    labels = [np.load(tmp_path / "out" / meta["splits"][split]["labels"]).tolist() for split in ("train", "val")]
    assert labels == [[0] * 6 + [1] * 5, [0] * 2 + [1] * 2]
    names = {"meta.json", "train-labels.npy", "val-labels.npy", "val-00000.npy"}
    assert set(contents(tmp_path / "out")) == names | {f"train-0000{number}.npy" for number in range(3)}

    net = AutoencoderKL.from_pretrained(vae)
    for split in ("train", "val"):
        files = sorted((images / split).rglob("*.png"))
        shards = [np.load(tmp_path / "out" / shard["file"]) for shard in meta["splits"][split]["shards"]]
        stored = torch.from_numpy(np.concatenate(shards))
        assert stored.dtype == torch.float16
        pixels = np.stack([np.asarray(Image.open(file)) for file in files]).astype(np.float32) / 127.5 - 1
        for mirrored, array in enumerate((pixels, pixels[:, :, ::-1])):
            with torch.no_grad():
                expected = net.encode(torch.from_numpy(array.transpose(0, 3, 1, 2).copy())).latent_dist
            torch.testing.assert_close(stored[:, mirrored, 0].float(), expected.mean, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(stored[:, mirrored, 1].float(), expected.std, rtol=1e-3, atol=1e-4)
        assert (stored[:, 1] - stored[:, 0].flip(-1)).abs().max() > 0.01  # why both are stored


def test_images_of_any_kind_are_resized_and_cut_at_the_centre(tmp_path, vae):
    """The short side becomes img_size, bicubic with antialiasing, and the centre of the long one is kept."""
    random = np.random.default_rng(0)
    wide = Image.fromarray(random.integers(0, 256, (2 * SIDE, 4 * SIDE), dtype=np.uint8))
    for split, name, image in (("train", "a", wide), ("train", "b", wide.convert("CMYK")), ("val", "a", wide)):
        (tmp_path / "images" / split / name).mkdir(parents=True)
        image.save(tmp_path / "images" / split / name / "x.tif")
    make(tmp_path / "images", tmp_path / "out", vae)
    small = wide.convert("RGB").resize((2 * SIDE, SIDE), Image.Resampling.BICUBIC)
    cut = np.asarray(small.crop((SIDE // 2, 0, SIDE * 3 // 2, SIDE))).astype(np.float32) / 127.5 - 1
    expected = VAE(str(vae)).encode(torch.from_numpy(cut.transpose(2, 0, 1).copy())[None])
    stored = torch.from_numpy(np.load(tmp_path / "out" / "train-00000.npy"))[:, 0].float()
    torch.testing.assert_close(stored[:1], expected, rtol=1e-3, atol=1e-4)


def test_a_folder_without_splits_is_divided_and_one_with_test_keeps_it(tmp_path, vae):
    save_images(tmp_path / "plain", 20)
    meta = make(tmp_path / "plain", tmp_path / "plain-out", vae, val_fraction=0.2)
    assert Latents("latents", str(tmp_path / "plain-out"), 2).sizes == {"train": 16, "val": 4, "test": 4}
    assert np.load(tmp_path / "plain-out" / meta["splits"]["val"]["labels"]).tolist() == [0, 0, 1, 1]
    for split, count in {"train": 4, "val": 3, "test": 2}.items():
        save_images(tmp_path / "three" / split, count)
    make(tmp_path / "three", tmp_path / "three-out", vae)
    assert Latents("latents", str(tmp_path / "three-out"), 2).sizes == {"train": 4, "val": 3, "test": 2}
    make(tmp_path / "plain", tmp_path / "all", vae, val_fraction=0.0)
    data = Latents("latents", str(tmp_path / "all"), 2)
    assert (data.sizes, data.val_dataloader()) == ({"train": 20, "val": 0, "test": 0}, [])


@pytest.mark.slow
def test_processes_make_the_same_files_as_one(images, tmp_path, vae):
    make(images, tmp_path / "one", vae)
    make(images, tmp_path / "two", vae, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("file", ["train-labels.npy", "train-00001.npy", "val-00000.npy", "meta.json"])
def test_an_interrupted_preparation_continues(images, tmp_path, monkeypatch, capsys, vae, file):
    make(images, tmp_path / "whole", vae)
    replace, written = utils.replace, []

    def interrupt(path, write):
        written.append(path.name)
        if path.name == file and len(written) == len(set(written)):
            path.with_name(f"{path.name}.1.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        replace(path, write)

    monkeypatch.setattr(utils, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(images, tmp_path / "out", vae)
    assert capsys.readouterr().err.endswith("interrupted: the same command continues\n")
    with pytest.raises(UsageError, match="other settings"):
        make(images, tmp_path / "out", vae, shard=6)
    with pytest.raises(ValueError, match=r"meta\.json"):
        Latents("latents", str(tmp_path / "out"), 2)
    before = len(written)
    make(images, tmp_path / "out", vae)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert set(written[:before]) & set(written[before:]) <= {file, "train-labels.npy", "val-labels.npy"}


def test_a_finished_folder_is_left_alone(images, tmp_path, monkeypatch, capsys, vae):
    first = make(images, tmp_path / "out", vae)
    with monkeypatch.context() as patch:
        patch.setattr(VAE, "encode", None)
        assert make(images, tmp_path / "out", vae, batch_size=3) == first
    assert "is complete: latents of 4 x 8 x 8 in 2 classes" in capsys.readouterr().out
    save_vae(tmp_path / "other", scaling_factor=0.6)
    for options in ({"img_size": 8}, {"shard": 6}, {"val_fraction": 0.3}, {"vae": tmp_path / "other"}):
        with pytest.raises(UsageError, match="other settings"):
            make(**{"images": images, "out": tmp_path / "out", "vae": vae, **options})
    (images / "train" / "cat" / "000.png").rename(images / "train" / "dog" / "000.png")
    with pytest.raises(UsageError, match="source changed"):
        make(images, tmp_path / "out", vae)


def test_two_processes_do_not_prepare_one_folder(images, tmp_path, vae):
    with utils.lock_folder(tmp_path / "out", "out", "busy"), pytest.raises(UsageError, match="another process"):
        make(images, tmp_path / "out", vae)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_image_that_cannot_be_read_is_named_and_the_rest_is_kept(images, tmp_path, vae, workers):
    broken = images / "train" / "dog" / "009.png"
    png = broken.read_bytes()
    make(images, tmp_path / "whole", vae)
    broken.write_bytes(png[:50])
    with pytest.raises(UsageError, match=r"^\S*009\.png: cannot be read.*the same command continues$"):
        make(images, tmp_path / "out", vae, workers=workers)
    assert (tmp_path / "out" / "train-00000.npy").exists()
    broken.write_bytes(png)
    make(images, tmp_path / "out", vae, workers=workers)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "options",
    [
        {"out": ""},
        {"images": ""},
        {"images": "/no/such"},
        {"vae": ""},
        {"vae": "/no/such"},
        {"img_size": 15},
        {"img_size": 0},
        {"batch_size": 0},
        {"shard": -1},
        {"val_fraction": 1.0},
        {"split_seed": -1},
        {"workers": 2000},
        {"device": "toaster"},
        {"device": "meta"},
    ],
)
def test_wrong_values_are_refused_in_one_line_and_leave_nothing(images, tmp_path, vae, options):
    with pytest.raises(UsageError, match=str(next(iter(options)))) as refusal:
        make(**{"images": images, "out": tmp_path / "out", "vae": vae, **options})
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_places_where_latents_cannot_go(images, tmp_path, vae):
    for out in (
        tmp_path,
        images / "train" / "cat" / "out",
        images / "out",
        vae / "config.json",
        vae / "config.json" / "x",
    ):
        with pytest.raises(UsageError, match="out="):
            make(images, out, vae)


@pytest.mark.slow
def test_the_command(images, tmp_path, vae):
    def call(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "prepare.py"), *argv]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = call(f"images={images}", "out=my latents", f"vae={vae}", f"img_size={SIDE}", "workers=1", "device=cpu")
    assert done.returncode == 0, done.stderr
    assert "python train.py task=dit data=latents data.root='my latents'" in done.stdout
    assert "images" in done.stderr
    wrong = call("image=x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert re.fullmatch("error: image: .*images.*\n", wrong.stderr)
    shown = call("--help").stdout
    for key, (default, comment) in OPTIONS.items():
        assert re.search(rf"\n  {re.escape(f'{key}={default}')} +# {re.escape(comment)}\n", shown)
