"""Reads benchmark.py's options, measures norms or models, and reports."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...cli import Options, progress, read_options
from ...config import groups
from ...config.errors import did_you_mean, require
from ...models.trained import find_device
from ...norms import names
from ...runs import make_numbered
from ...utils import cpu_count
from .norms import DTYPES, RIVALS, TENSORS, NormBenchmark
from .report import Benchmark, conditions, report

USAGE = "python benchmark.py [norm=all] [key=value ...]   or   model=<preset> [group=option ...] [key=value ...]"
COMMON: Options = {
    "norm": ("all", "which, as in norm=dyt,ln; all: every one that is registered"),
    "device": ("auto", "such as cpu or cuda:1; auto: the GPU if there is one"),
    "compile": (True, "torch.compile beside eager"),
    "seconds": (0.2, "of measuring for every number, after compiling and warming up"),
    "threads": (0, "of a CPU; 0: as PyTorch chooses"),
    "out": ("benchmarks", "the folder in which every benchmark makes one of its own"),
}
OF_NORMS: Options = {
    "shapes": ("", "tokens x width, as in shapes=8192x4096,2048x64; empty: some that suit the device"),
    "dtype": ("", "bf16 | fp16 | fp32, of input, weight and bias; empty: bf16 on a GPU, fp32 on a CPU"),
    "pass": ("all", "forward, backward, both (one after the other), as in pass=forward,both"),
    "rivals": ("all", "other libraries' kernels, as in rivals=torch,liger; none: none"),
}
HELP: dict[str, Options] = {
    "of both": COMMON,
    "of norms by themselves, where no model is named": OF_NORMS,
    "of whole models: those of train.py, such as model=, task=, data=": {
        "data.batch_size": (0, "samples of a step; 0: as the recipe has it"),
        "trainer.precision": ("", "empty: bf16-mixed on a GPU, 32-true on a CPU"),
    },
}


def benchmark(argv: Sequence[str]) -> Path:
    """Measures, prints and writes; returns the folder with `table.txt`, `results.json` and `plot.png`.

    Raises:
        UsageError: an option that cannot be, or nothing that can be measured.
        KeyboardInterrupt: after it has printed and written what was measured until then.
    """
    options, config = read(argv)
    device = find_device(options["device"])
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # events, and the launches of some libraries, are of the current one
    if config:
        from .models import ModelBenchmark  # lightning takes seconds to import

        made: Benchmark = ModelBenchmark(options, config, device)
    else:
        made = NormBenchmark(options, device)
    machine = conditions(device)
    folder = make_numbered(Path(options["out"]), made.name, "out")
    finished = False
    try:
        with progress("numbers") as bar:
            task = bar.add_task("", total=made.total)
            made.advance = partial(bar.advance, task)
            made.measure()
            bar.update(task, completed=made.total)
        finished = True
    finally:
        report(made, folder, machine, finished)
    return folder


def read(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Returns the options, and the arguments that compose a model's config, if there are any.

    A group of configs other than norm=, or a dotted key, makes it a benchmark of models.

    Raises:
        UsageError: an unknown key, or a value that cannot be.
    """
    keys = [argument.partition("=")[0] for argument in argv]
    of_models = any(key != "norm" and (key in groups() or "." in key) for key in keys)
    known = COMMON if of_models else {**COMMON, **OF_NORMS}
    config = [argument for argument, key in zip(argv, keys, strict=True) if of_models and key not in known]
    options = read_options([argument for argument in argv if argument not in config], known)
    require(options["seconds"] > 0, f"seconds={options['seconds']}: expected more than 0")
    threads, most = options["threads"], 4 * cpu_count()
    require(0 <= threads <= most, f"threads={threads}: expected 1 to {most}, or 0 for PyTorch's choice")
    require(bool(options["out"]), "out=: name a folder, as in out=benchmarks")
    options["norm"] = pick("norm", options["norm"], names())
    if not of_models:
        options["shapes"] = shapes(options["shapes"])
        options["pass"] = pick("pass", options["pass"], list(TENSORS))
        options["rivals"] = [] if options["rivals"] == "none" else pick("rivals", options["rivals"], list(RIVALS))
        require(options["dtype"] in ("", *DTYPES), f"dtype={options['dtype']}: choose from {', '.join(DTYPES)}")
    return options, config


def shapes(text: str) -> list[tuple[int, int]]:
    """Returns `8192x4096,2048x64` as (tokens, width) each."""
    pairs = [re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", one) for one in text.split(",") if text]
    require(all(pairs), f"shapes={text}: expected TOKENSxWIDTH, as in shapes=8192x4096 or shapes=8192x4096,2048x64")
    found = list(dict.fromkeys((int(one[1]), int(one[2])) for one in pairs if one))
    require(all(tokens * width <= 2**31 for tokens, width in found), f"shapes={text}: expected at most 2^31 elements")
    return found


def pick(key: str, text: str, known: Sequence[str]) -> list[str]:
    """Returns the names in `text`, separated by commas, in the order of `known`; for "all" all of them.

    Raises:
        UsageError: a name that is not known.
    """
    picked = list(known) if text == "all" else text.split(",")
    for name in picked:
        hint = did_you_mean(name, known)
        require(name in known, f"{key}={name}: there is no such one{hint}; choose from all, {', '.join(known)}")
    return [name for name in known if name in picked]
