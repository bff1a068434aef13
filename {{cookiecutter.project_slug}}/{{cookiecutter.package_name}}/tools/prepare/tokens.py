"""Preparation of tokens: documents become shards of token numbers, and a meta.json that describes them.

Hugging Face `datasets` reads, maps and caches; its cache lies in `<out>/cache` until the folder is complete.
"""

import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ... import utils
from ...cli import Options
from ...config.errors import UsageError, require
from ...data import prepared
from ...data.prepared import META
from ...data.tokens_sources import split_of
from ...data.tokens_stream import DTYPES, FORMAT, SPLITS, read_meta, read_shards
from ...data.tokens_text import END_OF_TEXT, Bytes, Codec, Tokenizer, checksum, train_tokenizer
from .documents import load_documents, local_files, root_cause

if TYPE_CHECKING:
    from datasets import Dataset

TOKENIZER = "tokenizer.json"
CACHE = "cache"
PIECE = 2**20  # characters that are encoded at a time: a tokenizer needs about a hundred times the memory
FOR_TOKENIZER = 10**9  # bytes of a source that a tokenizer is trained on, taken from all over it
INCLUDE = "*.txt *.md *.py *.jsonl *.parquet *.txt.gz *.jsonl.gz *.jsonl.zst"

OPTIONS: Options = {
    "source": ("", "a file (text, .json, .jsonl, .parquet; also .gz, .bz2, .xz, .zst), a folder of them, or hf:NAME"),
    "out": (
        "",
        "folder for the shards; interrupted, the same command continues from what out/cache holds",
    ),
    "tokenizer": ("bytes", "bytes, a tokenizer.json, or train: a byte-level BPE of the source's training documents"),
    "vocab_size": (4096, "of tokenizer=train"),
    "eot": ("", "token that ends a document; empty: the tokenizer's own, by the usual names"),
    "include": (INCLUDE, "names of a folder's files, at any depth; others are left out"),
    "text_key": ("text", "key or column with the text"),
    "separator": ("", r"between the documents of a text file (\n is a line end); empty: a file is one document"),
    "subset": ("", "of a data set of the hub that has several"),
    "hf_split": ("train", "of a data set of the hub; all of it is divided by the fractions below"),
    "val_fraction": (0.01, "share of the documents to validate on, by the hash of their text"),
    "test_fraction": (0.01, "share of the documents to test on"),
    "shard_mb": (64, "megabytes of a shard"),
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
    include: str,
    **reading: str,
) -> dict[str, Any]:
    """Makes the shards of a source and prints their sizes. A folder that is complete is only checked.

    Args: OPTIONS, explained there; `reading` are those of `load_documents`.

    Returns:
        The contents of meta.json.

    Raises:
        UsageError: a value out of range, a source or tokenizer that cannot be read, or a folder with other contents.
    """
    require(bool(out), "out is not set: out=FOLDER names where the shards go")
    both = f"val_fraction={val_fraction}, test_fraction={test_fraction}"
    sane = min(val_fraction, test_fraction) >= 0 and val_fraction + test_fraction < 1
    require(sane, f"{both}: expected 0 or more, and less than 1 together")
    require(shard_mb >= 1, f"shard_mb={shard_mb}: expected at least 1")
    require(0 <= workers <= 1024, f"workers={workers}: expected 0 (one per CPU) to 1024")
    folder, workers = Path(out).expanduser(), workers or utils.cpu_count()
    settings: dict[str, Any] = {"source": source, "tokenizer": tokenizer, "eot": eot, "include": include, **reading}
    settings |= {"val_fraction": val_fraction, "test_fraction": test_fraction, "shard_mb": shard_mb}
    given = None if tokenizer in ("bytes", "train") else Path(tokenizer).expanduser()
    if given is not None:
        Tokenizer(given, eot)
        settings["sha256"] = checksum(given)
    elif tokenizer == "train":
        require(vocab_size >= 257, f"vocab_size={vocab_size}: expected at least 257, the bytes and an end of text")
        settings["vocab_size"] = vocab_size
    complete = (folder / META).exists()
    gone = complete and not source.startswith("hf:") and not Path(source).expanduser().exists()
    files = [] if gone else local_files(source, include)  # shards may outlive their source
    state = None if gone else [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    if complete:
        meta = read_meta(out)
        prepared.check_made_from(meta, out, settings, state)
        read_shards(out)
        _report(out, meta)
        return meta

    reading["separator"] = reading["separator"].replace("\\n", "\n").replace("\\t", "\t")
    with prepared.begun(folder, out, {"settings": settings, "source": state}):
        try:
            documents = load_documents(source, files, cache=folder / CACHE, workers=workers, **reading)
            if given is not None:
                utils.replace(folder / TOKENIZER, lambda path: shutil.copyfile(given, path))
            elif tokenizer == "train" and not (folder / TOKENIZER).exists():
                texts = _training_texts(documents, val_fraction, test_fraction)
                library = train_tokenizer(texts, vocab_size, eot or END_OF_TEXT)
                utils.replace(folder / TOKENIZER, lambda path: library.save(str(path)))
            codec = Bytes() if tokenizer == "bytes" else Tokenizer(folder / TOKENIZER, eot)
            tokens = tokenize(documents, codec, val_fraction, test_fraction, folder / CACHE, workers)
            splits = write_shards(tokens, folder, codec, shard_mb * 10**6)
            _check_splits(splits, source, {"train": 1.0, "val": val_fraction, "test": test_fraction})
        except UsageError:
            prepared.done(folder, ["*.bin", TOKENIZER, CACHE])
            raise
        own = {"file": None} if tokenizer == "bytes" else {"file": TOKENIZER, "sha256": checksum(folder / TOKENIZER)}
        meta = {
            "format": FORMAT,
            "dtype": dtype_of(codec),
            "vocab_size": codec.vocab_size,
            "eot": codec.eot,
            "tokenizer": {**own, "eot": eot},
            "splits": splits,
            "made_from": settings,
            "source": state,
        }
        utils.write_json(folder / META, meta)
        prepared.done(folder, [CACHE])
    _report(out, meta)
    return meta


def tokenize(
    documents: Sequence["Dataset"], codec: Codec, val_fraction: float, test_fraction: float, cache: Path, workers: int
) -> list["Dataset"]:
    """Returns data sets with the columns ids (a list of tokens, `eot` last), split (index in SPLITS) and bytes.

    Raises:
        UsageError: a row has no text.
        RuntimeError: the system has ended a process.
    """
    from datasets import Features, List, Value

    columns = {"ids": List(Value(dtype_of(codec))), "split": Value("uint8"), "bytes": Value("int64")}
    encode = partial(_encode, codec=codec, val_fraction=val_fraction, test_fraction=test_fraction)
    cache.mkdir(exist_ok=True)
    found = []
    for number, part in enumerate(documents):
        options: Any = {"batched": True, "batch_size": 100, "writer_batch_size": 100, "with_indices": True}
        options |= {"features": Features(columns), "remove_columns": part.column_names, "desc": "tokens"}
        options |= {"num_proc": workers if workers > 1 else None}
        options |= {"cache_file_name": str(cache / f"tokens-{number}.arrow")}
        try:
            found.append(part.map(encode, **options))
        except RuntimeError as error:
            raise UsageError(f"{root_cause(error)}; fewer workers= need less memory") from error
    return found


def _encode(
    batch: dict[str, list[str | None]], rows: list[int], codec: Codec, val_fraction: float, test_fraction: float
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"ids": [], "split": [], "bytes": []}
    ((key, texts),) = batch.items()
    for row, text in zip(rows, texts, strict=True):
        if text is None:
            raise UsageError(f"row {row} of the source has no text in {key!r}; text_key= names another key")
        if text.strip():
            ids = [token for piece in pieces_of(text) for token in codec.encode(piece)]
            content = text.encode()
            columns["ids"].append(np.array([*ids, codec.eot], dtype_of(codec)))
            columns["split"].append(SPLITS.index(split_of(content, val_fraction, test_fraction)))
            columns["bytes"].append(len(content))
    return columns


def write_shards(tokens: Iterable["Dataset"], folder: Path, codec: Codec, size: int) -> dict[str, Any]:
    """Writes what `tokenize` returned as files of about `size` bytes, and returns the section `splits` of meta.json."""
    splits: dict[str, Any] = {name: {"bytes": 0, "documents": 0, "shards": []} for name in SPLITS}
    waiting: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}

    def write(name: str) -> None:
        ids, shards = np.concatenate(waiting[name]), splits[name]["shards"]
        file = f"{name}-{len(shards):05}.bin"
        utils.replace(folder / file, ids.astype(DTYPES[dtype_of(codec)]).tofile)
        shards.append({"file": file, "tokens": len(ids), "max": int(ids.max())})
        waiting[name] = []

    for part in tokens:
        for table in part.with_format("arrow").iter(1000):
            split = table["split"].to_numpy()
            for number, name in enumerate(SPLITS):
                rows = table.filter(split == number)
                if len(rows):
                    waiting[name].append(rows["ids"].combine_chunks().flatten().to_numpy())
                    splits[name]["bytes"] += int(rows["bytes"].to_numpy().sum())
                    splits[name]["documents"] += len(rows)
                if sum(ids.nbytes for ids in waiting[name]) >= size:
                    write(name)
    for name in SPLITS:
        if waiting[name]:
            write(name)
    return splits


def pieces_of(text: str) -> Iterator[str]:
    """Yields a text, a long one in pieces that end where lines end: hardly any tokenizer looks across."""
    start = 0
    while len(text) - start > PIECE:
        end = text.rfind("\n", start, start + PIECE) + 1 or start + PIECE
        yield text[start:end]
        start = end
    yield text[start:]


def dtype_of(codec: Codec) -> str:
    return "uint16" if codec.vocab_size <= 2**16 else "uint32"


def _training_texts(documents: Iterable["Dataset"], val_fraction: float, test_fraction: float) -> Iterator[str]:
    for part in documents:
        step = max(1, part.data.nbytes // FOR_TOKENIZER)
        for batch in part.select(range(0, len(part), step)).iter(100):
            for text in next(iter(batch.values())):
                if text and split_of(text.encode(), val_fraction, test_fraction) == "train":
                    yield from pieces_of(text)


def _check_splits(splits: dict[str, Any], source: str, fractions: dict[str, float]) -> None:
    total = sum(split["documents"] for split in splits.values())
    require(total > 0, f"source={source} holds no text")
    empty = [name for name in SPLITS if fractions[name] and not splits[name]["documents"]]
    more = "separator=... divides a text file into documents, and val_fraction=0 test_fraction=0 asks for no others"
    require(not empty, f"no document falls to {' and '.join(empty)}, of {total} in the source; {more}")


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
