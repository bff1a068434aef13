"""Helpers of the scripts: one-line errors and exit statuses, options, --help, printed config and summary."""

import errno
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from .config import CONFIGS, ROOTED, compose, groups, leaves, parse_yaml, plain, typed_value
from .config.errors import UsageError, did_you_mean, own_words, require

Options = Mapping[str, tuple[Any, str]]  # by key: the default, whose type is the key's type, and a comment

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # the disk's or the folder's state

OFTEN = r"optim\.(lr|betas|weight_decay)|norm\.\w+0|trainer\.max_\w+|data\.root"  # keys that the short --help has too

NOISE = (
    r".*does not have many workers.*",  # configs/data/ says how many, and small samples want none
    r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run's own
    r".*Total length of `list` across ranks is zero.*",  # data without a validation split
    r".*ModelCheckpoint\(monitor=.*could not find the monitored key.*",  # the same
    r".*number of training batches .* is smaller than the logging interval.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # lightning's, about torch
    r".*recommended to use `self.log\(.*sync_dist=True\)`.*",  # torchmetrics reduce themselves
)


def run(main: Callable[[list[str]], object]) -> None:
    """Calls `main` with the command line; a UsageError becomes one line on stderr and exit status 2.

    A full disk, or a folder that cannot be written, does so too. Ctrl-C ends it silently with status 130, and a closed
    pipe, as behind `| head`, with 141.
    """
    sys.stdout = sys.stdout or io.StringIO()  # it is None if it is closed
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except UsageError as error:
        print(f"error: {own_words(error)}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ended:  # rich's answer to a closed pipe
        sys.exit(141 if isinstance(ended.__context__, BrokenPipeError) else ended.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(141)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"error: {error.filename or 'output'}: {error.strerror}; files that were written stay", file=sys.stderr)
        sys.exit(2)


def quiet() -> None:
    """Silences Lightning's announcements, not its warnings. To be called after its import, which sets its level."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def read_options(argv: list[str], options: Options) -> dict[str, Any]:
    """Returns the options of a script as `argv` sets them, typed as a config's keys are, but text as it was typed.

    Raises:
        UsageError: an unknown key, or a value of the wrong type.
    """
    values = {key: default for key, (default, _) in options.items()}
    for argument in argv:
        key, equals, text = argument.partition("=")
        require(bool(equals), f"{argument}: expected key=value; --help lists the keys")
        require(key in options, f"{key}: there is no such key{did_you_mean(key, list(options))}; --help lists them")
        default = options[key][0]
        values[key] = text if isinstance(default, str) else typed_value(key, default, parse_yaml(text), text)
    return values


def print_options(usage: str, tables: Mapping[str, Options]) -> None:
    """Prints the keys of a script with their defaults, under the headings of `tables`."""
    print(f"usage: {usage}")
    for heading, options in tables.items():
        keys = {key: f"{key}={shown(default)}" for key, (default, _) in options.items()}
        print(f"\n{heading}:")
        for key, (_, comment) in options.items():
            print(f"  {keys[key]:{max(map(len, keys.values()))}}  # {comment}")


_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<value>[^#]*?)(?:\s+#\s*(?P<comment>.*))?$")


def print_help(usage: str, argv: list[str], full: bool = False) -> None:
    """Prints groups with their options, then keys of the config that `argv` composes, with value and comment.

    Args:
        full: every key, and what each option is; otherwise those that match `OFTEN` or have no section.
    """
    console = Console(highlight=False)
    console.print(Text(f"usage: {usage}\n"))
    tables = [_table("groups with their options")]
    for group, options in groups().items():
        tables[0].add_row(f"{group}=", Text(" ".join(options)))
        tables.append(_table(f"{group}="))
        for option in options:
            tables[-1].add_row(option, headline(CONFIGS / group / f"{option}.yaml"), style="")
    for table in tables[1:] if full else tables[:1]:
        console.print(table)
        console.print()
    cfg = compose(argv, check=False)
    table = _table("keys, as this command line sets them")
    notes = comments(cfg)
    for key, value in leaves(cfg):
        often = re.fullmatch(OFTEN, key) or ("." not in key and value != {})
        if not key.startswith("defaults.") and (full or often):
            table.add_row(Text(f"{key}={shown(value)}"), Text(notes.get(key, "")))
    console.print(table)
    if not full:
        console.print("\n--help-all lists every key and explains the options")


def print_tree(cfg: DictConfig) -> None:
    """Prints `cfg` as a tree, one line a section where it fits."""
    tree = Tree("config", hide_root=True)
    for key, value in plain(cfg).items():
        if isinstance(value, dict):
            pairs = [f"{name}={shown(leaf)}" for name, leaf in leaves(value)]
            tree.add(Text(key, style="bold")).add(Text("  ".join(pairs)))
        else:
            tree.add(Text(f"{key}={shown(value)}"))
    Console(highlight=False).print(tree)


def print_summary(run_dir: Path, values: Mapping[str, Any]) -> None:
    """Prints metrics and costs of a run, and the commands to look at it."""
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
    """Returns a progress bar on stderr, with a count and the time that remains."""
    columns = TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))


def shown(value: object) -> str:
    """Returns a value as it is typed on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def headline(path: Path) -> str:
    """Returns the first comment line of a config file: what it is."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def comments(cfg: DictConfig) -> dict[str, str]:
    """Returns the comment of every key, from the files that `cfg` was composed of."""
    notes = dict(_file_comments(CONFIGS / "train.yaml", ""))
    for group, option in cfg.defaults.items():
        prefix = "" if group in ROOTED else f"{group}."
        for key, comment in _file_comments(CONFIGS / str(group) / f"{option}.yaml", prefix):
            notes[key] = comment
    return notes


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2))


def _file_comments(path: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Yields (dotted key, comment at the end of its line) of a YAML file that nests by indentation."""
    stack: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        stack = [(depth, key) for depth, key in stack if depth < indent] + [(indent, match["key"])]
        if match["comment"]:
            yield prefix + ".".join(key for _, key in stack), match["comment"]
