{%- set dit = cookiecutter.families in ("all", "dit") -%}
{%- set llm = cookiecutter.families in ("all", "llm") -%}
"""Preparation of data sets before training: text to tokens, images to latents."""

import sys
from collections.abc import Callable
from typing import Any

from ...cli import Options, print_options, read_options
from ...config.constraints import (
    COUNT,
    SEED,
    Check,
    all_of,
    at_least,
    between,
    check_constraints,
    encoding,
    one_of,
    relation,
    share,
)
from ...config.errors import UsageError, require, translate_errors

USAGE = "python prepare.py {{ "source=<text>" if llm }}{{ "|" if llm and dit }}{{ "images=<folder>" if dit }} out=<folder> [key=value ...]"

CONSTRAINTS: dict[str, Check] = {
    **dict.fromkeys(("img_size", "batch_size", "shard"), COUNT),
    "val_fraction": all_of(share(), relation("less than 1 with", "test_fraction", lambda val, test: val + test < 1)),
    "test_fraction": share(),
    "vocab_size": at_least(257),  # the bytes, and the end of a document
    "split_seed": SEED,
    "encoding": encoding,
    "on_error": one_of("stop", "skip"),
    "max_skipped": at_least(0),
    "workers": between(0, 1024),
}


def main(argv: list[str]) -> None:
    """Prepares what `argv` asks for.

    Raises:
        UsageError: a wrong option, or data that cannot be prepared.
        KeyboardInterrupt: after a line that says how to continue.
    """
    if {"-h", "--help"} & set(argv):
        print_options(USAGE, {heading: options for heading, _, options in _kinds().values()})
        return
    kinds = _kinds()
    given = [key for key in kinds if any(argument.startswith(f"{key}=") for argument in argv)]
    if not given:
        read_options(argv, {key: option for _, _, options in kinds.values() for key, option in options.items()})
        raise UsageError(f"expected {' or '.join(f'{key}=...' for key in kinds)}; --help lists the keys")
    _, run, options = kinds[given[0]]
    values = read_options(argv, options)
    for key in (given[0], "out"):
        require(bool(values[key]), f"{key} is not set: expected a path")
    check_constraints(values, CONSTRAINTS)
    try:
        with translate_errors():
            run(**values)
    except KeyboardInterrupt:
        print("interrupted: the same command continues", file=sys.stderr)
        raise


def _kinds() -> dict[str, tuple[str, Callable[..., Any], Options]]:
    """Returns a heading, a function and its options for each kind of source, by the option that names the source."""
    kinds: dict[str, tuple[str, Callable[..., Any], Options]] = {}
{%- if llm %}
    from . import tokens

    kinds["source"] = ("source= text becomes tokens, for data=tokens", tokens.prepare, tokens.OPTIONS)
{%- endif %}
{%- if dit %}
    from . import latents

    kinds["images"] = ("images= images become latents, for data=latents", latents.prepare_latents, latents.OPTIONS)
{%- endif %}
    return kinds
