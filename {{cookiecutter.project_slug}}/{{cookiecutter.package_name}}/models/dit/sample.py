"""Images from a trained DiT: the options and the function of `python sample.py`."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...cli import progress
from ...config import plain, recompose
from ...config.errors import UsageError, require
from ...data import get_kind
from ...utils import WIDEST, columns, levels, mix, tiled, write_png
from ..build import find_device, set_precision, trained_model
from . import objectives
from .sampling import generate

OPTIONS = {
    "classes": ("", "numbers of classes, with commas between; the images are of each in turn; empty: of all"),
    "n": (40, "images, all classes together"),
    "guidance": (1.0, "1: as trained; above: more of what tells the class from others; 0: no class"),
    "interval": ("0,1", "from where to where guidance is on; 0 is noise, 1 the image"),
    "steps": (50, "of the sampler"),
    "sampler": ("", "heun | euler, of objective=ddpm ddpm | ddim; empty: the first of them"),
    "seed": (0, "of the noise; the same gives the same images"),
    "vae": ("", "decodes latents: a folder or a name on the hub; none: channels are shown; empty: the run's data.vae"),
    "out": ("", "a new .png file for the grid; empty: samples-<number>.png in the run directory"),
    "files": (False, "single files too, <number>_<class>.png in a folder named like the grid"),
    "batch_size": (64, "images at once; they are the same whatever it is"),
    "device": ("auto", "auto | cpu | cuda | cuda:1 | mps"),
}
MAX_SHOWN = 1000  # images in a grid


def sample(
    checkpoint: Path,
    config: Mapping[str, Any],
    classes: str,
    n: int,
    guidance: float,
    interval: str,
    steps: int,
    sampler: str,
    seed: int,
    vae: str,
    out: str,
    files: bool,
    batch_size: int,
    device: str,
) -> None:
    """Writes a grid of images, with `files` also each of them, and prints where.

    Raises:
        UsageError: an option out of range, or a file that is there already or cannot be written.
    """
    for key, value in {"n": n, "batch_size": batch_size}.items():
        require(value >= 1, f"{key}={value}: expected at least 1")
    require(n <= MAX_SHOWN or files, f"n={n}: a grid shows {MAX_SHOWN}; files=true writes more, each to its own file")
    require(guidance >= 0, f"guidance={guidance}: expected 0 or more")
    cfg = recompose(config, [], anew=(), free=())
    unguided = guidance == 1 or cfg.task.label_dropout > 0
    require(unguided, f"guidance={guidance}: this model never saw an image without its class; take 1")
    chosen, limits = _classes(classes, cfg.model.num_classes), _interval(interval)
    objective = objectives.build(**plain(cfg.objective))
    try:
        objectives.check_sampler(objective, steps, sampler)
        pixels = _pixels(plain(cfg.data), vae)
    except ValueError as error:
        raise UsageError(str(error)) from error
    model = trained_model(cfg, checkpoint).to(find_device(device))
    dtype = set_precision(model, cfg.trainer.precision)
    context = nullcontext if dtype is None else partial(torch.autocast, next(model.parameters()).device.type, dtype)

    labels, begun = [chosen[number % len(chosen)] for number in range(n)], time.perf_counter()
    shape = cfg.model.in_chans, cfg.model.img_size, cfg.model.img_size
    seeds = [mix(seed, number) for number in range(n)]
    how: dict[str, Any] = {"sampler": sampler, "guidance": guidance, "interval": limits, "context": context}
    batches = generate(model, objective, labels, seeds, shape, cfg.model.num_classes, steps, batch_size, **how)
    shown: list[Tensor] = []
    with _new_file(out, checkpoint, files) as path, progress("images") as bar:
        task, number = bar.add_task("", total=n, visible=bar.console.is_terminal), 0
        for batch in batches:
            images = levels(pixels(batch))
            shown += images[: MAX_SHOWN - len(shown)]
            for image in images if files else ():
                write_png(path.with_suffix("") / f"{number:0{len(str(n - 1))}}_{labels[number]}.png", image)
                number += 1
            bar.advance(task, len(images))
        write_png(path, tiled(torch.stack(shown), columns(len(shown), len(chosen))))
    listed = f", in columns of classes {', '.join(map(str, chosen[:n]))}" if len(chosen) <= WIDEST else ""
    print(f"{path}: {len(shown)} images{listed}")
    if files:
        print(f"{path.with_suffix('')}: {n} files")
    print(f"{n} images in {time.perf_counter() - begun:.1f} s")


def _pixels(section: dict[str, Any], vae: str) -> Callable[[Tensor], Tensor]:
    """Returns a function from samples to pixels; latents are decoded by `vae`, or else by the run's."""
    make = get_kind(section["module"]).pixels
    assert make is not None
    if vae:
        require("vae" in section, f"vae={vae}: this model was trained on images, not on latents; nothing is decoded")
        section = section | {"vae": vae}
    return make(section)


def _classes(text: str, number: int) -> list[int]:
    try:
        chosen = [int(part) for part in text.split(",")] if text else list(range(number))
    except ValueError as error:
        raise UsageError(f"classes={text}: expected numbers with commas between, as in classes=0,1") from error
    require(all(0 <= one < number for one in chosen), f"classes={text}: the model knows 0 to {number - 1}")
    return chosen


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    require(0 <= low < high <= 1, f"interval={text}: expected two rising numbers from 0 to 1, as in interval=0.2,0.8")
    return low, high


@contextmanager
def _new_file(out: str, checkpoint: Path, files: bool) -> Iterator[Path]:
    """Creates a file, and with `files` a folder beside it; removes both if what follows fails.

    Raises:
        UsageError: one is there already, or cannot be made.
    """
    path = Path(out).expanduser() if out else _numbered(checkpoint)
    require(path.suffix == ".png", f"out={out}: expected a name that ends in .png")
    folder = path.with_suffix("")
    for place in (path, folder) if files else (path,):
        require(not place.exists(), f"out={out}: {place} is there already; choose another name")
    try:
        path.touch()
        if files:
            folder.mkdir()
    except OSError as error:
        raise UsageError(f"out={path}: it cannot be written ({error.strerror})") from error
    try:
        yield path
    except BaseException:
        path.unlink()
        if files:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _numbered(checkpoint: Path) -> Path:
    """Returns the first of samples-1.png, samples-2.png, ... in the run directory that is free, and its folder too."""
    run = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    names = (run / f"samples-{number}.png" for number in count(1))
    return next(name for name in names if not name.exists() and not name.with_suffix("").exists())
