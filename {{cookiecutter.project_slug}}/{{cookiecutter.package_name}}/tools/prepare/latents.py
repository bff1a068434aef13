"""What `prepare.py images=` does: image folders become a folder of latents with a meta.json, the last file written."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ... import utils
from ...cli import Options
from ...data import prepared
from ...data.latents_shards import FORMAT, META, SPLITS, gigabytes, read_meta, shards
from ...errors import UsageError, require
from ...utils import cpu_count

if TYPE_CHECKING:
    from ...data.images import Source, Split
    from .encode import Job

OPTIONS: Options = {
    "images": ("", "folder with train/<class>/*, val/ and test/ alike if there are such, or with <class>/*"),
    "out": ("", "folder that the latents go to"),
    "vae": ("", "an AutoencoderKL: a folder with one, or its name on the hub, such as stabilityai/sd-vae-ft-ema"),
    "img_size": (256, "pixels on a side: the short side of an image is resized to it, and the centre cut out"),
    "val_fraction": (0.05, "share of the images to validate on, where there is no val/; without test/, val is both"),
    "split_seed": (0, "of that split"),
    "batch_size": (32, "images that are encoded together"),
    "workers": (0, "processes that read images; 0: one per CPU, 1: the main process"),
    "device": ("auto", "that encodes: auto, cpu, cuda, cuda:1, mps"),
    "shard": (4096, "images in a file, which is done again after an interruption"),
}


def prepare_latents(
    images: str,
    out: str,
    vae: str,
    img_size: int,
    val_fraction: float,
    split_seed: int,
    batch_size: int,
    workers: int,
    device: str,
    shard: int,
) -> dict[str, Any]:
    """Makes the latents of image folders, or those that are missing, and prints what came out.

    Args: OPTIONS, explained there.

    Returns:
        The contents of meta.json.

    Raises:
        UsageError: a value out of range, images or an autoencoder that cannot be read, or a folder with something else.
    """
    require(bool(out), "out is not set: out=FOLDER names where the latents go")
    for key, value in {"img_size": img_size, "batch_size": batch_size, "shard": shard}.items():
        require(value >= 1, f"{key}={value}: expected at least 1")
    require(0 <= val_fraction < 1, f"val_fraction={val_fraction}: expected 0 or more, and less than 1")
    require(0 <= split_seed < 2**32, f"split_seed={split_seed}: expected a whole number from 0 to {2**32 - 1}")
    require(0 <= workers <= 1024, f"workers={workers}: expected 0 (one per CPU) to 1024")
    folder, root = Path(out).expanduser(), Path(images).expanduser()
    layout = "a folder with train/<class>/* or <class>/*"
    require(bool(images), f"images is not set: images=FOLDER names {layout}")
    require(root.exists(), f"images={images} does not exist: expected {layout}")
    within = folder.resolve().is_relative_to(root.resolve())
    require(not within, f"out={out} is in images={images}, where it would be taken for a class; take another folder")
    from ...data.images import load
    from ...data.latents_vae import VAE
    from ...models.build import find_device  # with torch and Lightning, for which a wrong option should not wait
    from .encode import Job

    try:
        sources = load("folder", images)
    except (OSError, ValueError) as error:
        raise UsageError(f"images={images}: {error}") from error
    encoder = VAE(vae, "vae")
    fits = img_size % encoder.factor == 0
    require(fits, f"img_size={img_size}: expected a multiple of {encoder.factor}, the pixels that a latent stands for")
    settings = {"images": images, "vae": encoder.source, "weights": encoder.checksum(), "img_size": img_size}
    settings |= {"val_fraction": val_fraction, "split_seed": split_seed, "shard": shard}
    splits = _splits(sources, val_fraction, split_seed)
    source = _checksum(splits)
    if (folder / META).exists():
        meta = read_meta(out)
        prepared.check_made_from(meta, out, settings, source)
        shards(out)
        _report(out, meta)
        return meta

    encoder.net.to(find_device(device))
    read_by = 0 if workers == 1 else workers or cpu_count()
    job = Job(encoder, splits, out, img_size, shard, batch_size, read_by)
    with prepared.begun(folder, out, {"settings": settings, "source": source}):
        try:
            job.run()
        except UsageError:
            if not any(file.exists() for name in splits for file in job.files(name)):
                prepared.done(folder, ["*.npy"])
            raise
        meta = _finish(job, sources["train"].class_names, settings, source)
    _report(out, meta)
    return meta


def _splits(sources: dict[str, "Source"], val_fraction: float, seed: int) -> dict[str, "Split"]:
    """Returns train, val and, if there are images for it, test."""
    from ...data.images import divide

    try:
        splits = divide(sources, {"val": val_fraction}, seed)
    except ValueError as error:
        raise UsageError(f"val_fraction={val_fraction}: {error}") from error
    return {name: splits[name] for name in SPLITS if name in splits}


def _checksum(splits: Mapping[str, "Split"]) -> str:
    """Returns a checksum of the names of all files, their classes and splits, not of what is in the files."""
    digest = hashlib.sha256()
    for name, (source, indices) in splits.items():
        names = "\n".join(source.dataset.filenames())
        digest.update(f"{name} {len(indices)}\n{names}".encode("utf-8", "surrogateescape"))
        for part in (source.targets, indices):
            digest.update(part.astype(np.int64).tobytes())
    return digest.hexdigest()


def _finish(job: "Job", classes: list[str], settings: dict[str, Any], source: str) -> dict[str, Any]:
    def entry(name: str) -> dict[str, Any]:
        made = [{"file": file.name, "images": len(images)} for file, images in job.files(name).items()]
        return {"labels": job.labels(name).name, "shards": made}

    meta = {
        "format": FORMAT,
        "shape": list(job.shape),
        "scaling_factor": job.vae.scale,
        "shift_factor": job.vae.shift,
        "vae": job.vae.source,
        "img_size": settings["img_size"],
        "classes": classes,
        # As in papers on ImageNet, whose own test labels are not public.
        "splits": {name: entry(name if name in job.splits else "val") for name in SPLITS},
        "made_from": settings,
        "source": source,
    }
    utils.write_json(job.folder / META, meta)
    prepared.done(job.folder)
    return json.loads(json.dumps(meta))


def _report(out: str, meta: dict[str, Any]) -> None:
    table = Table(box=None)
    for column in ("split", "images", "files", "GB"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for name, split in meta["splits"].items():
        images = sum(shard["images"] for shard in split["shards"])
        shown = "test (= val)" if name == "test" and split == meta["splits"]["val"] else name
        size = gigabytes(images, meta["shape"])
        table.add_row(shown, f"{images:,}", str(len(split["shards"])), f"{size:,.3f}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    shape, classes = " x ".join(map(str, meta["shape"])), len(meta["classes"])
    console.print(f"{out} is complete: latents of {shape} in {classes:,} classes; next:", markup=False)
    console.print(f"  python train.py task=dit data=latents data.root={shlex.quote(out)}", markup=False)
