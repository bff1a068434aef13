"""What a person reads of a config: `--help`, and the tree that every run prints first."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from .config import CONFIGS, ROOTED, compose, groups, plain
from .values import leaves

_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<value>[^#]*?)(?:\s+#\s*(?P<comment>.*))?$")


def print_help(usage: str, argv: list[str]) -> None:
    """Groups with their options, then every key of the config that `argv` composes, with value and comment."""
    console = Console(highlight=False)
    console.print(Text(f"usage: {usage}\n"))
    for group, options in groups().items():
        table = _table(f"{group}=")
        for option in options:
            table.add_row(option, headline(CONFIGS / group / f"{option}.yaml"), style="")
        console.print(table)
        console.print()
    cfg = compose(argv)
    table = _table("keys, as this command line sets them")
    notes = comments(cfg)
    for key, value in leaves(cfg):
        if not key.startswith("defaults."):
            table.add_row(Text(f"{key}={shown(value)}"), Text(notes.get(key, "")))
    console.print(table)


def print_tree(cfg: DictConfig) -> None:
    """`cfg` as a tree, one line a section where it fits."""
    tree = Tree("config", hide_root=True)
    resolved = OmegaConf.create(plain(cfg))
    for key, value in resolved.items():
        section = str(key)
        if isinstance(value, DictConfig):
            pairs = [f"{name}={shown(leaf)}" for name, leaf in leaves(value)]
            tree.add(Text(section, style="bold")).add(Text("  ".join(pairs)))
        else:
            tree.add(Text(f"{section}={shown(value)}"))
    Console(highlight=False).print(tree)


def print_summary(run_dir: Path, values: Mapping[str, Any]) -> None:
    """What a run came to, what it cost, and where to look."""
    metrics = [f"{tag} {values[tag]:.4f}" for tag in sorted(values) if tag.startswith("test/")]
    cost = [
        f"{values['seconds']:.0f} s",
        *(f"{value:,.0f} {key.removesuffix('_per_second')}/s" for key, value in values.items() if "_per_second" in key),
        *([f"{values['mfu']:.1%} of the peak rate (MFU)"] if "mfu" in values else []),
        f"{values['parameters']:,} parameters",
    ]
    if values["peak_memory_bytes"]:
        cost.append(f"{values['peak_memory_bytes'] / 2**30:.1f} GiB of memory")
    lines = {
        "result": "  ".join(metrics),
        "cost": ", ".join(cost),
        "run": run_dir,
        "look": f"tensorboard --logdir {quote(str(run_dir.parent))}",
        "test again": f"python evaluate.py checkpoint={quote(str(run_dir))}",
    }
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    for label, text in lines.items():
        console.print(Text(f"{label:<11}", style="bold"), Text(str(text)), sep="")


def progress(unit: str) -> Progress:
    """A bar on stderr that counts what is done of all."""
    columns = TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))


def shown(value: object) -> str:
    """A value as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def headline(path: Path) -> str:
    """The first comment line of a config file: what it is."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def comments(cfg: DictConfig) -> dict[str, str]:
    """The comment of every key, from the files that `cfg` was composed of."""
    notes = dict(_file_comments(CONFIGS / "train.yaml", ""))
    for group, option in cfg.defaults.items():
        prefix = "" if group in ROOTED else f"{group}."
        for key, comment in _file_comments(CONFIGS / str(group) / f"{option}.yaml", prefix):
            notes[key] = comment
    return notes


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2))


def _file_comments(path: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """(dotted key, comment at the end of its line) of a YAML file that nests by indentation."""
    stack: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        stack = [(depth, key) for depth, key in stack if depth < indent] + [(indent, match["key"])]
        if match["comment"]:
            yield prefix + ".".join(key for _, key in stack), match["comment"]
