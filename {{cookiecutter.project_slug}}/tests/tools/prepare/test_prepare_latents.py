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
from {{cookiecutter.package_name}}.data.latents import Latents
from {{cookiecutter.package_name}}.data.latents_vae import VAE
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.tools.prepare import encode as latents_encode
from {{cookiecutter.package_name}}.tools.prepare.latents import OPTIONS, prepare_latents

from ...data.latents_files import save_vae
from ...runs import ROOT

DEFAULTS = {key: default for key, (default, _) in OPTIONS.items()}
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
    given = {"img_size": SIDE, "batch_size": 2, "workers": 1, "device": "cpu", "shard": 5} | options
    return prepare_latents(**DEFAULTS | {"images": str(images), "out": str(out), "vae": str(vae)} | given)


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
    expected = VAE(str(vae), "vae").encode(torch.from_numpy(cut.transpose(2, 0, 1).copy())[None])
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


def test_processes_make_the_same_files_as_one(images, tmp_path, vae):
    make(images, tmp_path / "one", vae)
    make(images, tmp_path / "two", vae, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("place", ["train-labels.npy", "train-00001.npy", "val-00000.npy", "meta.json"])
def test_what_was_interrupted_goes_on(images, tmp_path, monkeypatch, vae, place):
    make(images, tmp_path / "whole", vae)
    replace, written = utils.replace, []

    def breaking(path, write):
        written.append(path.name)
        if path.name == place and len(written) == len(set(written)):
            path.with_name(f"{path.name}.1.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        replace(path, write)

    monkeypatch.setattr(utils, "replace", breaking)
    with pytest.raises(KeyboardInterrupt):
        make(images, tmp_path / "out", vae)
    assert not (tmp_path / "out" / "meta.json").exists()
    if place != "train-labels.npy":
        with pytest.raises(UsageError, match=r"prepare\.py has not finished it: the same command continues"):
            Latents("latents", str(tmp_path / "out"), 2)
    before = len(written)
    make(images, tmp_path / "out", vae)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    again = {place, "train-labels.npy", "val-labels.npy"}
    assert set(written[:before]) & set(written[before:]) <= again


def test_a_finished_folder_is_left_alone(images, tmp_path, monkeypatch, capsys, vae):
    first = make(images, tmp_path / "out", vae)
    monkeypatch.setattr(latents_encode.Job, "run", None)
    assert make(images, tmp_path / "out", vae, batch_size=3) == first
    assert "is complete: latents of 4 x 8 x 8 in 2 classes" in capsys.readouterr().out
    for options in ({"img_size": 8}, {"shard": 6}, {"val_fraction": 0.3}):
        with pytest.raises(UsageError, match="holds data of other settings; take another folder"):
            make(images, tmp_path / "out", vae, **options)
    save_vae(tmp_path / "other", scaling_factor=0.6)
    with pytest.raises(UsageError, match="holds data of other settings"):
        make(images, tmp_path / "out", tmp_path / "other")


def test_other_images_do_not_go_on_with_what_was_begun(images, tmp_path, monkeypatch, vae):
    with monkeypatch.context() as patch:
        patch.setattr(latents_encode.Job, "run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(images, tmp_path / "out", vae)
    (images / "train" / "cat" / "000.png").rename(images / "train" / "dog" / "000.png")
    with pytest.raises(UsageError, match="was begun with other settings, or the source has changed"):
        make(images, tmp_path / "out", vae)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_cannot_be_read_is_named_and_the_rest_is_kept(images, tmp_path, vae, workers):
    broken = images / "train" / "dog" / "009.png"
    whole = broken.read_bytes()
    make(images, tmp_path / "whole", vae)
    broken.write_bytes(whole[:50])
    with pytest.raises(UsageError) as refusal:
        make(images, tmp_path / "out", vae, workers=workers)
    expected = rf"{re.escape(str(broken))} cannot be read .*; once it is replaced the same command goes on"
    assert re.fullmatch(expected, str(refusal.value))
    assert (tmp_path / "out" / "train-00000.npy").exists()
    broken.write_bytes(whole)
    make(images, tmp_path / "out", vae, workers=workers)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    (images / "train" / "cat" / "000.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"000\.png cannot be read"):
        make(images, tmp_path / "none", vae, workers=workers)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": ""}, "out is not set: out=FOLDER names where the latents go"),
        ({"images": ""}, "images is not set: images=FOLDER names a folder with train/<class>/*"),
        ({"images": "/no/such"}, "images=/no/such does not exist: expected a folder with train/<class>/*"),
        ({"vae": ""}, "vae=: there is no such folder; expected one with config.json and weights, or a name on the hub"),
        ({"vae": "/no/such"}, "vae=/no/such: there is no such folder"),
        ({"img_size": 15}, "img_size=15: expected a multiple of 2, the pixels that a latent stands for"),
        ({"img_size": 0}, "img_size=0: expected at least 1"),
        ({"batch_size": 0}, "batch_size=0: expected at least 1"),
        ({"shard": -1}, "shard=-1: expected at least 1"),
        ({"val_fraction": 1.0}, "val_fraction=1.0: expected 0 or more, and less than 1"),
        ({"split_seed": -1}, "split_seed=-1: expected a whole number from 0"),
        ({"workers": 2000}, "workers=2000: expected 0 (one per CPU) to 1024"),
        ({"device": "toaster"}, "device=toaster: PyTorch finds no such device here; auto takes what there is"),
        ({"device": "hpu"}, "device=hpu: PyTorch finds no such device here"),
        ({"device": "meta"}, "device=meta: it computes nothing"),
    ],
)
def test_values_that_cannot_be_are_refused_and_leave_nothing(images, tmp_path, vae, options, words):
    with pytest.raises(UsageError) as refusal:
        make(**{"images": images, "out": tmp_path / "out", "vae": vae, **options})
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_places_that_are_no_place_for_latents(images, tmp_path, monkeypatch, vae):
    for out, words in {
        tmp_path: "holds other files; take an empty folder or a new one",
        images / "train" / "cat" / "000.png" / "out": "is in images=",
        images / "out": "is in images=.*, where it would be taken for a class",
        vae / "config.json": "is a file: expected a folder",
        vae / "config.json" / "out": r"nothing can be written there \(Not a directory\)",
    }.items():
        with pytest.raises(UsageError, match=words):
            make(images, out, vae)
    monkeypatch.setattr(latents_encode, "gigabytes", lambda *_: 1e9)
    with pytest.raises(UsageError, match=r"out: 1,000,000,000\.0 GB are needed there, and .* GB are free"):
        make(images, tmp_path / "out", vae)
    assert not (tmp_path / "out").exists()


def test_without_diffusers_it_says_what_to_install(images, tmp_path, monkeypatch, vae):
    monkeypatch.setitem(sys.modules, "diffusers", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"^vae=.* needs the package diffusers: uv sync --extra latents$"):
        make(images, tmp_path / "out", vae)


def test_ctrl_c_ends_with_one_line(images, tmp_path, monkeypatch, capfd, vae):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(VAE, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        script.main([f"images={images}", f"out={tmp_path / 'out'}", f"vae={vae}", f"img_size={SIDE}", "device=cpu"])
    assert capfd.readouterr().err.endswith("\ninterrupted: the same command continues\n")


def test_the_command(images, tmp_path, vae):
    def call(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "prepare.py"), *argv]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = call(f"images={images}", "out=my latents", f"vae={vae}", f"img_size={SIDE}", "workers=1", "device=cpu")
    assert done.returncode == 0, done.stderr
    assert "python train.py task=dit data=latents data.root='my latents'" in done.stdout
    assert "images" in done.stderr
    assert json.loads((tmp_path / "my latents" / "meta.json").read_text())["shape"] == [4, 8, 8]
    wrong = call("image=x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: image: there is no such key (did you mean images?); --help lists them\n"
    shown = call("--help").stdout
    for key, (default, comment) in OPTIONS.items():
        assert re.search(rf"\n  {re.escape(f'{key}={default}')} +# {re.escape(comment)}\n", shown)
