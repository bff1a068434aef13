"""Preparation of latents: encodes image folders into shards (see data/latents.py), those that are not there yet."""

import hashlib
import shlex
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import utils
from ...cli import Options, progress
from ...config.errors import UsageError, own_words
from ...data import prepared
from ...data.prepared import META

if TYPE_CHECKING:
    from torch import Tensor

    from ...data.images import Split
    from ...data.vae import VAE

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
        ValueError: images or an autoencoder that cannot be read, or a folder with something else.
    """
    folder, root = Path(out).expanduser(), Path(images).expanduser()
    if root.exists() and folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"out={out} is in images={images} and would be taken for a class; take another folder")
    from torch.utils.data import DataLoader, Subset

    from ...data.image_sources import load  # with Lightning, for which a wrong option should not wait
    from ...data.images import ImageSet, divide
    from ...data.latents import FORMAT, SPLITS, Latents, read_meta
    from ...data.transforms import image_transforms
    from ...data.vae import VAE
    from ...models.trained import find_device

    try:
        sources = load("folder", images)
        divided = divide(sources, {"val": val_fraction}, split_seed)
    except (OSError, ValueError) as error:
        raise ValueError(f"images={images}: {error}") from error
    splits = {name: divided[name] for name in SPLITS if name in divided}
    encoder = VAE(vae)
    if img_size % encoder.factor:
        raise ValueError(f"img_size={img_size}: expected a multiple of {encoder.factor}, the pixels of one latent")
    settings = {"images": images, "vae": encoder.source, "img_size": img_size}
    settings |= {"val_fraction": val_fraction, "split_seed": split_seed, "shard": shard}
    source = _checksum(splits)
    if (folder / META).exists():
        meta = read_meta(out)
        prepared.check_made_from(meta, out, settings, source)
        Latents("latents", out, batch_size)  # checks the files
        _report(out, meta)
        return meta

    encoder.model.to(find_device(device))
    side = img_size // encoder.factor
    files = {name: _files(name, len(split.indices), shard) for name, split in splits.items()}
    shards = {name: [{"file": file, "images": len(part)} for file, part in parts] for name, parts in files.items()}
    entries = {name: {"labels": f"{name}-labels.npy", "shards": shards[name]} for name in files}
    meta = {
        "format": FORMAT,
        "shape": [encoder.channels, side, side],
        "scaling_factor": encoder.scale,
        "shift_factor": encoder.shift,
        "vae": encoder.source,
        "img_size": img_size,
        "classes": sources["train"].class_names,
        # Validation images are the test too where there is none, as in papers on ImageNet, whose labels are not public.
        "splits": {name: entries.get(name, entries["val"]) for name in SPLITS},
        "made_from": settings,
        "source": source,
    }
    _, transform = image_transforms(img_size, 3, (0.5,), (0.5,), "bicubic", 1.0, {})  # RGB in -1..1
    readers = 0 if workers == 1 else workers or utils.cpu_count()
    with prepared.begun(folder, out, {"settings": settings, "source": source}), progress("images") as bar:
        task = bar.add_task("", total=sum(len(split.indices) for split in splits.values()))
        for name, split in splits.items():
            _write(folder / f"{name}-labels.npy", split.source.targets[split.indices].astype(np.int64))
            dataset = ImageSet(split, "RGB", transform)
            for file, part in files[name]:
                if (folder / file).exists():
                    bar.advance(task, len(part))
                else:
                    batches = DataLoader(Subset(dataset, part), batch_size, num_workers=readers)
                    _write(folder / file, _encoded(encoder, batches, partial(bar.advance, task)))
        utils.write_json(folder / META, meta)
        prepared.done(folder)
    _report(out, meta)
    return meta


def _files(name: str, images: int, shard: int) -> list[tuple[str, range]]:
    """Returns the shards of a split, and which of its images are in each."""
    starts = range(0, images, shard)
    return [(f"{name}-{i:05}.npy", range(images)[start : start + shard]) for i, start in enumerate(starts)]


def _checksum(splits: Mapping[str, "Split"]) -> str:
    """Returns a checksum of the names of all files, their classes and splits, not of their contents."""
    digest = hashlib.sha256()
    for name, (source, indices) in splits.items():
        names = "\n".join(source.dataset.filenames())
        digest.update(f"{name} {len(indices)}\n{names}".encode("utf-8", "surrogateescape"))
        for part in (source.targets, indices):
            digest.update(part.astype(np.int64).tobytes())
    return digest.hexdigest()


def _encoded(vae: "VAE", batches: Iterable[tuple["Tensor", "Tensor"]], advance: Callable[[int], None]) -> np.ndarray:
    """Returns latents (images, 2, 2, C, h, w) in fp16; `advance` takes the number of images after each batch.

    Raises:
        ValueError: an image cannot be read, a latent is too large for fp16, or the device has too little memory.
    """
    import torch

    latents = []
    try:
        for images, _ in batches:
            latents.append(torch.stack((vae.encode(images), vae.encode(images.flip(-1))), dim=1).half().cpu())
            advance(len(images))
    except torch.OutOfMemoryError as error:
        raise ValueError("a batch takes too much memory of the device; continue with a smaller batch_size") from error
    except UsageError as error:  # an image cannot be read, perhaps in a worker
        raise UsageError(f"{own_words(error)}; then the same command continues") from error
    array = torch.cat(latents).numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"vae={vae.source}: it gives latents beyond the range of fp16")
    return array


def _write(file: Path, array: np.ndarray) -> None:
    def write(path: Path) -> None:
        with open(path, "wb") as opened:  # numpy would add .npy to a name
            np.save(opened, array)

    utils.replace(file, write)


def _report(out: str, meta: Mapping[str, Any]) -> None:
    sizes = {name: sum(shard["images"] for shard in split["shards"]) for name, split in meta["splits"].items()}
    counts = ", ".join(f"{size:,} {name}" for name, size in sizes.items())
    same = ", where test is val" if meta["splits"]["test"] == meta["splits"]["val"] else ""
    shape, classes = " x ".join(map(str, meta["shape"])), len(meta["classes"])
    print(f"{out} is complete: latents of {shape} in {classes:,} classes of images ({counts}{same}); next:")
    print(f"  python train.py task=dit data=latents data.root={shlex.quote(out)}")
