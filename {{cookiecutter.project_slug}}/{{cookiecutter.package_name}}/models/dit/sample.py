"""Images from a trained DiT; `python sample.py --help` lists the options."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...cli import progress
from ...config import plain, recompose
from ...data import get_kind
from ...errors import UsageError, require
from ...utils import WIDEST, columns, levels, mix, tiled, write_png
from ..build import find_device, set_precision, trained_model
from . import objectives as dit_objectives
from .objectives import Objective
from .sampling import check_sampling, generate

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
SHOWN = 1000  # images at most in a grid


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
    """Writes a grid of images, and on request each of them, and prints where.

    Raises:
        UsageError: an option out of range, or a file that is there already or cannot be written.
    """
    for key, value in {"n": n, "batch_size": batch_size}.items():
        require(value >= 1, f"{key}={value}: expected a whole number from 1 on")
    require(n <= SHOWN or files, f"n={n}: a grid shows {SHOWN}; files=true writes more of them, each to its own file")
    limits = _interval(interval)
    cfg = recompose(config, [], anew=(), free=())
    net_classes = cfg.model.num_classes
    chosen = _classes(classes, net_classes)
    objective = dit_objectives.build(**plain(cfg)["objective"])
    check_sampling(objective, cfg.task.label_dropout, steps, sampler, guidance, limits)
    pixels = _pixels(plain(cfg.data), vae)
    net = trained_model(cfg, checkpoint).to(find_device(device))
    autocast = set_precision(net, cfg.trainer.precision)

    labels = [chosen[number % len(chosen)] for number in range(n)]
    seeds = [mix(seed, number) for number in range(n)]
    shape = cfg.model.in_chans, cfg.model.img_size, cfg.model.img_size
    how: dict[str, Any] = {"sampler": sampler or objective.samplers[0], "guidance": guidance, "interval": limits}
    how |= {"batch_size": batch_size, "autocast": autocast}
    shown: list[Tensor] = []
    begun = time.perf_counter()
    with _new_file(out, checkpoint, files) as path:
        number = 0
        batches = generate(net, objective, labels, seeds, shape, net_classes, steps, **how)
        for batch in _watched(batches, net, objective, n, batch_size):
            images = levels(pixels(batch))
            shown += images[: max(0, SHOWN - number)]
            for image in images:
                if files:
                    name = f"{number:0{len(str(n - 1))}}_{labels[number]}.png"
                    write_png(path.with_suffix("") / name, image)
                number += 1
        width = columns(len(shown), len(chosen))
        write_png(path, tiled(torch.stack(shown), width))
    listed = f", in columns of classes {', '.join(map(str, chosen[:n]))}" if len(chosen) <= WIDEST else ""
    print(f"{path}: {len(shown)} images{listed}")
    if files:
        print(f"{path.with_suffix('')}: {n} files")
    print(f"{n} images in {time.perf_counter() - begun:.1f} s")


def _pixels(section: dict[str, Any], vae: str) -> Callable[[Tensor], Tensor]:
    """From samples to pixels, of latents with the autoencoder `vae` or else the run's."""
    make = get_kind(section["module"]).pixels
    assert make is not None
    if "vae" in section:
        return make(section | {"vae": vae or section["vae"]}, key="vae")
    require(not vae, f"vae={vae}: this net was trained on images, not on latents, and nothing is decoded")
    return make(section)


def _classes(text: str, number: int) -> list[int]:
    if not text:
        return list(range(number))
    try:
        chosen = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"classes={text}: expected numbers with commas between, as in classes=0,1") from error
    known = all(0 <= one < number for one in chosen)
    require(known, f"classes={text}: the net knows 0 to {number - 1}")
    return chosen


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"interval={text}: expected two rising numbers from 0 to 1, as in interval=0.2,0.8") from error
    return low, high


@contextmanager
def _new_file(out: str, checkpoint: Path, files: bool) -> Iterator[Path]:
    """A file that was not there, and with `files` a folder beside it; both go again if what follows fails.

    Raises:
        UsageError: `out` or its folder is there already, or cannot be made.
    """
    path = Path(out).expanduser() if out else _numbered(checkpoint)
    require(path.suffix == ".png", f"out={out}: expected a name that ends in .png")
    folder = path.with_suffix("")
    for place in (path, folder) if files else (path,):
        require(not place.exists(), f"out={out}: {place} is there already; choose another name")
    try:
        try:
            path.touch(exist_ok=False)
            if files:
                folder.mkdir()
        except OSError as error:
            raise UsageError(f"out={path}: it cannot be written ({error.strerror})") from error
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        if files:
            shutil.rmtree(folder, ignore_errors=True)  # the error at hand counts
        raise


def _numbered(checkpoint: Path) -> Path:
    """The first of samples-1.png, samples-2.png, ... in the run directory that is free, and whose folder is."""
    run = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    names = (run / f"samples-{number}.png" for number in count(1))
    return next(name for name in names if not name.exists() and not name.with_suffix("").exists())


def _watched(
    batches: Iterator[Tensor], net: nn.Module, objective: Objective, total: int, batch_size: int
) -> Iterator[Tensor]:
    """`batches`, with a progress bar on a terminal, which moves on whenever the net runs."""
    bar = progress("images")
    if not bar.console.is_terminal:
        yield from batches
        return
    done = 0
    with bar:
        images = bar.add_task("", total=total)

        def move(_: nn.Module, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
            share = objective.progress(inputs[1][0].item())
            bar.update(images, completed=done + share * min(batch_size, total - done))

        with net.register_forward_pre_hook(move):
            for batch in batches:
                yield batch
                done += len(batch)
        bar.update(images, completed=total)
