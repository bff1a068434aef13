"""Images from a trained DiT: the options and the function of `python sample.py`."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor

from ...cli import progress
from ...config import leaves, parse_yaml, plain, recompose
from ...config.constraints import CONSTRAINTS, all_of, between, check_constraints, multiple_of
from ...config.errors import UsageError, require, translate_errors
from ...data import get_kind
from ...utils import levels, mix
from ..trained import class_names, find_device, set_precision, trained_model
from . import objectives
from .grids import MAX_COLUMNS, columns, image_grid, write_png
from .model import build
from .sampling import Sampler

OPTIONS = {
    "classes": ("", "names or numbers of classes, with commas between; the images take turns; empty: all classes"),
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
    cfg = recompose(config, [], anew=(), free=())
    limits = parse_yaml(f"[{interval}]")
    names = class_names(checkpoint, cfg.model.num_classes)
    chosen = [names.index(one) if one in names else parse_yaml(one) for one in filter(None, classes.split(","))]
    options = {"classes": chosen, "n": n, "guidance": guidance, "interval": limits, "steps": steps}
    options |= {"sampler": sampler, "batch_size": batch_size}
    check_constraints(
        dict(leaves(plain(cfg))) | options,
        {
            "classes": all_of(between(0, cfg.model.num_classes - 1), multiple_of(1)),
            "n": between(1, 10**6 if files else MAX_SHOWN),
            "batch_size": between(1, 2**16),
            **{key: CONSTRAINTS[f"task.quality.{key}"] for key in ("guidance", "interval", "steps", "sampler")},
        },
    )
    data, path = plain(cfg.data), _new_file(out, checkpoint)
    folder = path.with_suffix("")
    if vae:
        require("vae" in data, f"vae={vae}: this model was trained on images, not on latents; nothing is decoded")
        data["vae"] = vae
    to_pixels = get_kind(data["module"]).pixels
    assert to_pixels is not None
    with translate_errors():
        pixels, objective = to_pixels(data), objectives.build(**plain(cfg.objective))
    model = trained_model(build, cfg, checkpoint).to(find_device(device))
    with translate_errors("out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path.parent).close()  # an error now rather than after the work
        if files:
            folder.mkdir()
    dtype = set_precision(model, cfg.trainer.precision)
    context = nullcontext if dtype is None else partial(torch.autocast, next(model.parameters()).device.type, dtype)

    chosen, begun, shown = chosen or list(range(cfg.model.num_classes)), time.perf_counter(), list[Tensor]()
    labels, seeds = [chosen[number % len(chosen)] for number in range(n)], [mix(seed, number) for number in range(n)]
    shape = cfg.model.in_chans, cfg.model.img_size, cfg.model.img_size
    sampled = Sampler(model, objective, shape, cfg.model.num_classes, steps, sampler, guidance, limits, context)
    with progress("images") as bar:
        task = bar.add_task("", total=n)
        stems = (f"{number:0{len(str(n - 1))}}_{label}" for number, label in enumerate(labels))
        for latents in sampled.generate(labels, seeds, batch_size):
            images = pixels(latents)
            shown += images[: MAX_SHOWN - len(shown)]
            for image in images if files else ():
                write_png(folder / f"{next(stems)}.png", levels(image))
            bar.advance(task, len(images))
        write_png(path, image_grid(torch.stack(shown), columns(len(shown), len(chosen))))
    listed = (
        f", in columns of classes {', '.join(names[one] for one in chosen[:n])}" if len(chosen) <= MAX_COLUMNS else ""
    )
    print(f"{path}: {len(shown)} images{listed}")
    if files:
        print(f"{folder}: {n} files")
    print(f"{n} images in {time.perf_counter() - begun:.1f} s")


def _new_file(out: str, checkpoint: Path) -> Path:
    """Returns the path of the grid; by default the first free samples-<number>.png in the run directory.

    Raises:
        UsageError: it is there already, or a folder named like it, or it is no .png.
    """
    run = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    names = [Path(out).expanduser()] if out else (run / f"samples-{number}.png" for number in count(1))
    for path in names:
        if path.suffix == ".png" and not path.exists() and not path.with_suffix("").exists():
            return path
    raise UsageError(f"out={out}: expected the name of a new .png file")
