{%- set vit = cookiecutter.families in ("all", "vit") -%}
{%- set cnn = cookiecutter.families in ("all", "cnn") -%}
{%- set dit = cookiecutter.families in ("all", "dit") -%}
{%- set llm = cookiecutter.families in ("all", "llm") -%}
"""Metrics on shifted data: `python evaluate.py checkpoint=runs/<run> shift=<name>`.

The module of a shift has its NAME, what it is ABOUT, its KINDS, the function `shifted`, which returns the data of a
kind and strength, 0 to 5, and `write_samples`. The family says which metric is measured (`shift_metric`).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from ... import cli, utils
from ...config import plain
from ...config.errors import UsageError
from ...models import get_family
from ...runs import load_checkpoint

STRENGTHS = [1, 2, 3, 4, 5]


def shifts() -> dict[str, ModuleType]:
    """Returns the modules of all shifts by the kind of data that they are for."""
    found: dict[str, ModuleType] = {}
{%- if vit or cnn or dit %}
    from . import images

    found["images"] = images
{%- endif %}
{%- if llm %}
    from . import text

    found["tokens"] = text
{%- endif %}
    return found


def shift_of(cfg: Mapping[str, Any], name: str) -> tuple[ModuleType, tuple[str, str]]:
    """Returns the module of a shift, and the metric of the run's family with `max` or `min`.

    Raises:
        UsageError: the data have no such shift, or the family no such metric.
    """
    part, family = shifts().get(cfg["data"]["module"]), cfg["task"]["name"]
    if part is None or name != part.NAME:
        there = f"there is shift={part.NAME}" if part else "there is none"
        raise UsageError(f"shift={name}: for data={cfg['defaults']['data']} {there}")
    metric = get_family(family).shift_metric
    if metric is None:
        raise UsageError(f"shift={name}: task={family} has no metric of how well a model does on given data")
    return part, metric


def evaluate_shift(cfg: DictConfig, checkpoint: Path, split: str, name: str, out: Path | None) -> dict[str, Any]:
    """Measures a checkpoint under every kind and strength of a shift, and prints the table.

    Args:
        out: folder for `shift-<name>.json`, a curve and samples of the data (`shift-<name>-val.*` of another split than
            test); None writes nothing.

    Returns:
        The contents of the JSON file: `metric` (its tag) and `mode`, max or min; `clean`, the value on the data
        themselves; `clean_by_kind`, the values at strength 0; `kinds`, lists of values by `strengths`; null where a
        value is not finite. `split`, `samples` (of it), `data`, `checkpoint` and `step` say what was measured.

    Raises:
        UsageError: the data have no such shift or the family no metric for it, or as `train.evaluate` says.
    """
    part, (metric, mode) = shift_of(plain(cfg), name)
    from ...train import build_trainer, load_trained, measure  # imports Lightning, which takes seconds

    data, task = load_trained(cfg, checkpoint, split)
    section, tag = plain(cfg.data), f"{split}/{metric}"
    trainer = build_trainer(cfg, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    origins, kinds = {}, {}
    with cli.progress(f"shift={name}") as bar:
        bar.disable = not trainer.is_global_zero
        values = bar.add_task("", total=len(part.KINDS) * (1 + len(STRENGTHS)))
        clean = measure(trainer, task, data, split)[tag]
        batches = trainer.num_val_batches if split == "val" else trainer.num_test_batches
        samples = min(data.sizes[split], int(sum(batches)) * data.batch_size * trainer.world_size)
        for kind in part.KINDS:
            row = []
            for strength in (0, *STRENGTHS):
                shown = part.shifted(data, section, kind, strength)
                row.append(clean if shown is data else measure(trainer, task, shown, split)[tag])
                bar.advance(values)
            origins[kind], kinds[kind] = row[0], row[1:]
    report = {
        "metric": tag,
        "mode": mode,
        "split": split,
        "samples": samples,
        "data": cfg.defaults.data,
        "checkpoint": checkpoint.name,
        "step": load_checkpoint(checkpoint)["global_step"],
        "clean": clean,
        "strengths": STRENGTHS,
        "clean_by_kind": origins,
        "kinds": kinds,
    }
    if trainer.is_global_zero:
        _print(report, f"{tag} of {samples} {data.noun}s")
        if out is not None:
            stem = out / (f"shift-{name}" if split == "test" else f"shift-{name}-{split}")
            utils.write_json(stem.with_suffix(".json"), report)
            _draw(report, stem.with_suffix(".png"))
            pictures = part.write_samples(data, section, split, out / f"{stem.name}-samples")
            print(f"written: {stem.with_suffix('.json')}, {stem.with_suffix('.png')}, {pictures}")
    return report


def curves(report: Mapping[str, Any]) -> dict[str, list[float]]:
    """Returns the metric under each kind, and their `mean`, at strength 0 and at each of `strengths`; null as nan."""
    rows = {kind: [report["clean_by_kind"][kind], *values] for kind, values in report["kinds"].items()}
    known = {kind: [math.nan if value is None else value for value in row] for kind, row in rows.items()}
    return {**known, "mean": [fmean(values) for values in zip(*known.values(), strict=True)]}


def _print(report: Mapping[str, Any], title: str) -> None:
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("strength")
    for strength in [0, *report["strengths"]]:
        table.add_column(str(strength), justify="right")
    for kind, values in curves(report).items():
        table.add_row(kind, *(f"{value:.4f}" for value in values), style="bold" if kind == "mean" else None)
    Console(highlight=False).print(table)


def _draw(report: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="strength (0: none)", ylabel=report["metric"])
    for kind, values in curves(report).items():
        line: Any = {"color": "black", "linewidth": 2.5} if kind == "mean" else {"marker": "."}
        axes.plot([0, *report["strengths"]], values, label=kind.replace("_", " "), **line)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    utils.replace(path, lambda file: figure.savefig(file, format="png"))
