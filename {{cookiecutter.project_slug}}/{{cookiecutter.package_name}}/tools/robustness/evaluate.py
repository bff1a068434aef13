{%- set vit = cookiecutter.families in ("all", "vit") -%}
{%- set dit = cookiecutter.families in ("all", "dit") -%}
{%- set llm = cookiecutter.families in ("all", "llm") -%}
"""Metrics away from the data that a net was trained on: `python evaluate.py checkpoint=runs/<run> shift=<name>`.

A shift belongs to the data: `data/<module>_shift.py` has its NAME, what it is ABOUT, its KINDS, and for each kind what
it starts from (`origin`) and what it is at strengths 1 to 5 (`damaged`). SHIFT_METRIC in `tasks/<family>.py` is what is
followed, if a family has something that can be compared so.
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
from ...errors import UsageError
from ...models import get_family
from ...runs import load_checkpoint

STRENGTHS = [1, 2, 3, 4, 5]


def shifts() -> dict[str, ModuleType]:
    """What there is, by the module of the data that it belongs to."""
    found: dict[str, ModuleType] = {}
{%- if vit or dit %}
    from . import images

    found["images"] = images
{%- endif %}
{%- if llm %}
    from . import text

    found["tokens"] = text
{%- endif %}
    return found


def shift_of(cfg: Mapping[str, Any], name: str) -> tuple[ModuleType, tuple[str, str]]:
    """The module of a run's data with this shift, and what is followed: a metric, and `max` or `min`.

    Raises:
        UsageError: the data have no such shift, or the family no metric for it.
    """
    part, family = shifts().get(cfg["data"]["module"]), cfg["task"]["name"]
    if part is None or name != part.NAME:
        there = f"there is shift={part.NAME}" if part else "there is none"
        raise UsageError(f"shift={name}: for data={cfg['defaults']['data']} {there}")
    found = get_family(family).shift_metric
    if found is None:
        raise UsageError(f"shift={name}: task={family} has no metric that says what a net makes of what it is shown")
    return part, found


def evaluate_shift(cfg: DictConfig, checkpoint: Path, split: str, name: str, out: Path | None) -> dict[str, Any]:
    """Measures a checkpoint under every kind and strength of a shift, and prints the table.

    Args:
        out: where `shift-<name>.json`, a curve and samples of what the net was shown are left (`shift-<name>-val.*` of
            another split than test); None writes nothing.

    Returns:
        What the JSON file holds: `metric` by its tag and `mode`, max or min; `clean`, its value on the data themselves,
        `clean_by_kind` on what each kind starts from, and `kinds`, a list of values by `strengths` for each; null where
        a value is not finite. What was measured say `split`, `samples` (of it), `data`, `checkpoint` and `step`.

    Raises:
        UsageError: the data have no such shift or the family no metric for it, or as `fit.evaluate` says.
    """
    part, (metric, mode) = shift_of(plain(cfg), name)
    from ...data.base import DataModule
    from ...train import build_trainer, measured, restored  # imports Lightning, which takes seconds

    data, task = restored(cfg, checkpoint, split)
    section, tag = plain(cfg.data), f"{split}/{metric}"
    trainer = build_trainer(cfg, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    bar = cli.progress(f"shift={name}")
    bar.disable = not trainer.is_global_zero
    count = bar.add_task("", total=len(part.KINDS) * (1 + len(STRENGTHS)))

    def value(shown: DataModule) -> float:
        found = clean if shown is data else measured(trainer, task, shown, split)[tag]
        bar.advance(count)
        return found

    origins, kinds = {}, {}
    with bar:
        clean = measured(trainer, task, data, split)[tag]
        batches = trainer.num_val_batches if split == "val" else trainer.num_test_batches
        samples = min(data.sizes[split], int(sum(batches)) * data.batch_size * trainer.world_size)
        for kind in part.KINDS:
            start = part.origin(data, section, kind)
            origins[kind] = value(start)
            kinds[kind] = [value(part.damaged(start, section, kind, strength)) for strength in STRENGTHS]
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
            written = [stem.with_suffix(suffix) for suffix in (".json", ".png")]
            written.append(part.write_samples(data, section, split, out / f"{stem.name}-samples"))
            print(f"written: {', '.join(map(str, written))}")
    return report


def curves(report: Mapping[str, Any]) -> dict[str, list[float]]:
    """The metric under each kind, and their `mean`, at strength 0 and at each of `strengths`; null becomes nan."""
    rows = {kind: [report["clean_by_kind"][kind], *values] for kind, values in report["kinds"].items()}
    known = {kind: [math.nan if value is None else value for value in row] for kind, row in rows.items()}
    return {**known, "mean": [fmean(values) for values in zip(*known.values(), strict=True)]}


def _print(report: Mapping[str, Any], title: str) -> None:
    table = Table("strength", *map(str, [0, *report["strengths"]]), title=title, title_justify="left", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, values in curves(report).items():
        table.add_row(kind, *(f"{value:.4f}" for value in values), style="bold" if kind == "mean" else None)
    Console(highlight=False).print(table)


def _draw(report: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="strength (0: none)", ylabel=report["metric"])
    steps = [0, *report["strengths"]]
    for kind, values in curves(report).items():
        line: Any = {"color": "black", "linewidth": 2.5} if kind == "mean" else {"marker": "."}
        axes.plot(steps, values, label=kind.replace("_", " "), **line)
    axes.set_xticks(steps)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    utils.replace(path, lambda file: figure.savefig(file, format="png"))
