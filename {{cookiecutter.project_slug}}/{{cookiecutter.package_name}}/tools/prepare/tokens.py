"""What `prepare.py` does: a source of documents becomes a folder of shards with a meta.json, the last file written."""

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ... import cli, utils
from ...cli import Options
from ...data import prepared
from ...data.prepared import META
from ...data.tokens_shards import FORMAT, SPLITS, read_meta, shards
from ...data.tokens_sources import split_of
from ...data.tokens_text import END_OF_TEXT, Tokenizer, checksum, train_tokenizer
from ...errors import UsageError, require
from ...utils import cpu_count
from .documents import Part, open_source
from .parts import TOKENIZER, Job, pieces_of

OPTIONS: Options = {
    "source": ("", "a text or .jsonl file, a folder of them, or hf:NAME, a Hugging Face dataset"),
    "out": ("", "folder that the shards go to"),
    "tokenizer": ("bytes", "bytes, a tokenizer.json, or train: a byte-level BPE of the source's training documents"),
    "vocab_size": (4096, "of tokenizer=train"),
    "eot": ("", "token that ends a document; empty: the tokenizer's own, by the usual names"),
    "include": ("*.txt *.md *.py *.jsonl", "names of a folder's files, at any depth; others are left out"),
    "text_key": ("text", "where a line of .jsonl, or a row of a dataset, has its text"),
    "separator": ("", r"between the documents of a text file (\n is a line end); empty: a file is one document"),
    "subset": ("", "of a Hugging Face dataset that has several"),
    "hf_split": ("train", "of a Hugging Face dataset; all of it is divided by the fractions below"),
    "val_fraction": (0.01, "share of the documents to validate on, by the hash of their text"),
    "test_fraction": (0.01, "share of the documents to test on"),
    "shard_mb": (64, "megabytes of source that make one shard of each split, done again after an interruption"),
    "workers": (0, "processes; 0: one per CPU"),
}


def prepare(
    source: str,
    out: str,
    tokenizer: str,
    vocab_size: int,
    eot: str,
    val_fraction: float,
    test_fraction: float,
    shard_mb: int,
    workers: int,
    **reading: Any,
) -> dict[str, Any]:
    """Makes the shards of a source, or those that are missing, and prints what came out.

    Args: OPTIONS, explained there; `reading` are those of `open_source`.

    Returns:
        The contents of meta.json.

    Raises:
        UsageError: a value out of range, a source or tokenizer that cannot be read, or a folder with something else.
    """
    require(bool(out), "out is not set: out=FOLDER names where the shards go")
    fractions = (val_fraction, test_fraction)
    sane = min(fractions) >= 0 and sum(fractions) < 1
    both = f"val_fraction={val_fraction}, test_fraction={test_fraction}"
    require(sane, f"{both}: expected 0 or more, and less than 1 together")
    require(shard_mb >= 1, f"shard_mb={shard_mb}: expected at least 1")
    require(0 <= workers <= 1024, f"workers={workers}: expected 0 (one per CPU) to 1024")
    settings = {"source": source, "tokenizer": tokenizer, "eot": eot, **reading}
    settings |= {"val_fraction": val_fraction, "test_fraction": test_fraction, "shard_mb": shard_mb}
    given = None if tokenizer in ("bytes", "train") else Path(tokenizer).expanduser()
    if given is not None:
        Tokenizer(given, eot)
        settings["sha256"] = checksum(given)
    elif tokenizer == "train":
        require(vocab_size >= 257, f"vocab_size={vocab_size}: expected at least 257, the bytes and an end of text")
        settings["vocab_size"] = vocab_size
    folder = Path(out).expanduser()
    if (folder / META).exists():
        meta = read_meta(out)
        there = Path(source).expanduser().exists()  # the shards may have outlived it
        prepared.check_made_from(meta, out, settings, open_source(source, **reading).state() if there else None)
        shards(out)
        _report(out, meta)
        return meta

    opened = open_source(source, **reading)
    parts = opened.parts(shard_mb * 10**6)
    require(bool(parts), f"source={source} holds no text")
    job = Job(opened, folder, None if tokenizer == "bytes" else eot, fractions)
    with prepared.begun(folder, out, {"settings": settings, "source": opened.state()}):
        try:
            if given is not None:
                utils.replace(folder / TOKENIZER, lambda path: shutil.copyfile(given, path))
            elif tokenizer == "train" and not (folder / TOKENIZER).exists():
                _train_tokenizer(job, parts, vocab_size, max(1, len(parts) * shard_mb // 1000))
            _run(job, parts, workers or cpu_count())
            meta = _finish(job, len(parts), settings, opened.state())
        except UsageError:
            if not any(folder.glob("part-*.json")):
                prepared.done(folder, ["*.bin", TOKENIZER])
            raise
    _report(out, meta)
    return meta


def _train_tokenizer(job: Job, parts: Sequence[Part], vocab_size: int, step: int) -> None:
    """From the training documents of every step-th part: of a large source, a gigabyte from all over it will do."""
    documents = (text for part in parts[::step] for text in job.source.documents(part))
    pieces = (p for text in documents if split_of(text.encode(), *job.fractions) == "train" for p in pieces_of(text))
    library = train_tokenizer(pieces, vocab_size, job.eot or END_OF_TEXT)
    utils.replace(job.out / TOKENIZER, lambda path: library.save(str(path)))


def _run(job: Job, parts: Sequence[Part], workers: int) -> None:
    with cli.progress("parts") as progress:
        done = sum(job.note(number).exists() for number in range(len(parts)))
        bar = progress.add_task("", total=len(parts), completed=done)
        for _ in job.run_all(parts, workers):
            progress.advance(bar)


def _finish(job: Job, parts: int, settings: dict[str, Any], source: Any) -> dict[str, Any]:
    """Gathers the notes of all parts in meta.json, and removes them."""
    splits: dict[str, dict[str, Any]] = {split: {"bytes": 0, "documents": 0, "shards": []} for split in SPLITS}
    for number in range(parts):
        for split, note in json.loads(job.note(number).read_bytes()).items():
            for key, value in note.items():
                splits[split][key] += value
    wanted = {"train": 1.0, "val": job.fractions[0], "test": job.fractions[1]}
    empty = [split for split in SPLITS if wanted[split] and not splits[split]["documents"]]
    total = sum(split["documents"] for split in splits.values())
    more = "separator=... divides a text file into documents, and val_fraction=0 test_fraction=0 asks for no others"
    if empty:
        prepared.remove(job.out, ["part-*.json"])
    require(not empty, f"no document falls to {' and '.join(empty)}, of {total} in the source; {more}")
    own = {"file": None} if job.eot is None else {"file": TOKENIZER, "sha256": checksum(job.out / TOKENIZER)}
    meta = {
        "format": FORMAT,
        "dtype": job.dtype,
        "vocab_size": job.codec.vocab_size,
        "eot": job.codec.eot,
        "tokenizer": {**own, "eot": job.eot},
        "splits": splits,
        "made_from": settings,
        "source": source,
    }
    utils.write_json(job.out / META, meta)
    prepared.done(job.out, ["part-*.json"])
    return json.loads(json.dumps(meta))


def _report(out: str, meta: dict[str, Any]) -> None:
    table = Table(box=None)
    for column in ("split", "documents", "tokens", "bytes", "bytes/token"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for name, split in meta["splits"].items():
        tokens = sum(shard["tokens"] for shard in split["shards"])
        counts = [f"{count:,}" for count in (split["documents"], tokens, split["bytes"])]
        table.add_row(name, *counts, f"{split['bytes'] / max(1, tokens):.3f}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"{out} is complete, with a vocabulary of {meta['vocab_size']:,}; next:", markup=False)
    console.print(f"  python train.py task=llm data=tokens data.root={shlex.quote(out)}", markup=False)
