"""What is typed after benchmark.py, checked before anything is measured."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...cli import Options, print_options, read_options
from ...config import groups
from ...errors import UsageError, did_you_mean, require

USAGE = "python benchmark.py [norm=all] [key=value ...]   or   model=<preset> [group=option ...] [key=value ...]"
COMMON: Options = {
    "norm": ("all", "which, as in norm=dyt,ln; all: every one that is registered"),
    "device": ("auto", "such as cpu or cuda:1; auto: the GPU if there is one"),
    "compile": (True, "torch.compile beside eager"),
    "seconds": (0.2, "of measuring for every number, after what it takes to compile and to warm up"),
    "threads": (0, "of a CPU; 0: as PyTorch chooses"),
    "out": ("benchmarks", "the folder in which every benchmark makes one of its own"),
}
OF_NORMS: Options = {
    "shapes": ("", "tokens x width, as in shapes=8192x4096,2048x64; empty: some that suit the device"),
    "dtype": ("", "bf16 | fp16 | fp32, of input, weight and bias; empty: bf16 on a GPU, fp32 on a CPU"),
    "pass": ("all", "forward, backward, both (one after the other), as in pass=forward,both"),
    "rivals": ("all", "other libraries' kernels, as in rivals=torch,liger; none: none"),
}
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}  # as PyTorch calls them
PASSES = ("forward", "backward", "both")


@dataclass(frozen=True)
class Choices:
    """The options as read, and what composes a model's config; without any the norms are measured by themselves."""

    options: Mapping[str, Any]
    config: Sequence[str]


def choose(argv: Sequence[str]) -> Choices:
    """Tells the two benchmarks apart by what is typed: a group of options but norm=, or a dotted key, makes a config.

    Raises:
        UsageError: an unknown key, or a value that cannot be.
    """
    keys = [argument.partition("=")[0] for argument in argv]
    of_model = any(key != "norm" and (key in groups() or "." in key) for key in keys)
    known = COMMON if of_model else {**COMMON, **OF_NORMS}
    config = [argument for argument, key in zip(argv, keys, strict=True) if of_model and key not in known]
    options = read_options([argument for argument in argv if argument not in config], known)
    require(options["seconds"] > 0, f"seconds={options['seconds']}: expected more than 0")
    require(options["threads"] >= 0, f"threads={options['threads']}: expected 1 or more, or 0 for PyTorch's choice")
    require(bool(options["out"]), "out=: name a folder, as in out=benchmarks")
    if not of_model:
        read_shapes(options["shapes"])
        chosen("pass", options["pass"], PASSES)
        require(options["dtype"] in ("", *DTYPES), f"dtype={options['dtype']}: choose from {', '.join(DTYPES)}")
    return Choices(options, config)


def print_help() -> None:
    tables = {
        "of both": COMMON,
        "of norms by themselves, where no model is named": OF_NORMS,
        "of whole models: those of train.py, such as model=, task=, data=": {
            "data.batch_size": (0, "samples of a step; 0: as the recipe has it"),
            "trainer.precision": ("", "empty: bf16-mixed on a GPU, 32-true on a CPU"),
        },
    }
    print_options(USAGE, tables)


def read_shapes(text: str) -> list[tuple[int, int]]:
    """`8192x4096,2048x64` as (tokens, width) each; nothing for nothing."""
    shapes = []
    for one in text.split(",") if text else []:
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", one)
        if match is None:
            raise UsageError(f"shapes={one}: expected ROWSxWIDTH, as in shapes=8192x4096 or shapes=8192x4096,2048x64")
        shapes.append((int(match[1]), int(match[2])))
    return list(dict.fromkeys(shapes))


def chosen(key: str, text: str, known: Sequence[str]) -> list[str]:
    """The names in `text`, separated by commas, in the order of `known`; `all` of them.

    Raises:
        UsageError: a name that is not known, or none at all.
    """
    names = text.split(",")
    if text == "all":
        return list(known)
    for name in names:
        hint = did_you_mean(name, known)
        require(name in known, f"{key}={name}: there is no such one{hint}; choose from all, {', '.join(known)}")
    return [name for name in known if name in names]
