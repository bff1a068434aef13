"""Preparation of tokens: documents become shards of tokens, and a meta.json that describes them.

Hugging Face `datasets` reads, maps and caches; its cache lies in `<out>/cache` until the folder is complete.
"""

import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import ByteLevelBPETokenizer, Regex, pre_tokenizers

from ... import utils
from ...cli import Options
from ...data import prepared
from ...data.prepared import META
from ...data.tokens_sources import DTYPES, FORMAT, SPLITS, read_meta, read_shards, split_of
from ...data.tokens_text import END_OF_TEXT, Codec, pieces
from .documents import State, load_documents, local_files, root_cause

if TYPE_CHECKING:
    from datasets import Dataset

TOKENIZER = "tokenizer.json"
CACHE = "cache"
SHARD = 64 * 10**6  # bytes of a file of tokens
WORD = Regex(".{1,256}")  # longer words are cut: training on one of 500 kB took a minute, and takes a second in pieces
FOR_TOKENIZER = 10**9  # bytes of a source that a tokenizer is trained on, taken from all over it

OPTIONS: Options = {
    "source": ("", "a file (text, .json, .jsonl, .ndjson, .parquet; also .gz, .bz2, .xz, .zst), a folder, or hf:NAME"),
    "out": ("", "folder for the shards; interrupted, the same command continues from what out/cache holds"),
    "tokenizer": ("bytes", "bytes, a tokenizer.json, or train: a byte-level BPE of the source's training documents"),
    "vocab_size": (4096, "of tokenizer=train"),
    "eot": ("", "token that ends a document; empty: the tokenizer's own, by the usual names"),
    "include": (
        "*.txt *.md *.py *.json *.jsonl *.ndjson *.parquet",
        "names of a folder's files, at any depth, in capitals or not, compressed or not; others are left out",
    ),
    "encoding": ("utf-8", "of files without a byte order mark, such as cp1252 or shift_jis"),
    "on_error": ("stop", "at a record that is no text: stop | skip, which leaves out and counts up to max_skipped"),
    "max_skipped": (100, "records that on_error=skip may leave out"),
    "text_key": ("text", "key or column with the text"),
    "separator": ("", r"between the documents of a text file (\n is a line end); empty: a file is one document"),
    "subset": ("", "of a data set of the hub that has several"),
    "hf_split": ("train", "of a data set of the hub; all of it is divided by the fractions below"),
    "val_fraction": (0.01, "share of the documents to validate on, by the hash of their text"),
    "test_fraction": (0.01, "share of the documents to test on"),
    "workers": (0, "processes; 0: one per CPU"),
}


def prepare(out: str, workers: int, **settings: Any) -> None:
    """Makes the shards of a source and prints their sizes. A folder that is complete is only checked.

    Args: OPTIONS, explained there.

    Raises:
        ValueError: a source or tokenizer that cannot be read, or a folder with other contents.
    """
    folder = Path(out).expanduser()
    if settings["tokenizer"] not in ("bytes", "train"):
        path = Path(settings["tokenizer"]).expanduser()
        Codec(path, settings["eot"])
        settings["sha256"] = sha256(path.read_bytes()).hexdigest()
    files = local_files(settings["source"], settings["include"])
    if (folder / META).exists():
        meta = read_meta(out)
        prepared.check_made_from(meta, out, settings, files)
        read_shards(out)
    else:
        with prepared.begun(folder, out, {"settings": settings, "source": files}):
            try:
                workers = workers or utils.cpu_count()
                meta = _make(folder, files, settings, workers if workers > 1 else None)
            except ValueError:
                prepared.done(folder, ["*.bin", TOKENIZER, CACHE])
                raise
            utils.write_json(folder / META, meta)
            prepared.done(folder, [CACHE])
    for name, split in meta["splits"].items():
        tokens = sum(shard["tokens"] for shard in split["shards"])
        counts = f"{split['documents']:>12,} documents {tokens:>16,} tokens {split['bytes']:>16,} bytes"
        print(f"{name:<5} {counts} {split['bytes'] / max(1, tokens):>7.3f} bytes/token")
    if meta["skipped"]:
        print(f"skipped: {len(meta['skipped'])} record(s) that are no text, such as {meta['skipped'][0]}")
    print(f"{out} is complete, with a vocabulary of {meta['vocab_size']:,}; next:")
    print(f"  python train.py task=llm data=tokens data.root={shlex.quote(out)}")


def _make(folder: Path, files: list[State], settings: dict[str, Any], workers: int | None) -> dict[str, Any]:
    """Writes tokenizer and shards, and returns the contents of meta.json."""
    eot, fractions = settings["eot"], {name: settings[f"{name}_fraction"] for name in ("val", "test")}
    split = partial(split_of, val_fraction=fractions["val"], test_fraction=fractions["test"])
    documents, skipped = load_documents(files, settings, folder / CACHE, workers)
    path = None if settings["tokenizer"] == "bytes" else folder / TOKENIZER
    if path and not path.exists():
        if settings["tokenizer"] == "train":
            trained = ByteLevelBPETokenizer()
            cut = pre_tokenizers.Split(WORD, "isolated")
            trained.pre_tokenizer = pre_tokenizers.Sequence([trained.pre_tokenizer, cut])
            how: Any = {"min_frequency": 0, "show_progress": False, "special_tokens": [eot or END_OF_TEXT]}
            trained.train_from_iterator(_training_texts(documents, split), settings["vocab_size"], **how)
            utils.replace(path, lambda file: trained.save(str(file)))
        else:
            utils.replace(path, lambda file: shutil.copyfile(Path(settings["tokenizer"]).expanduser(), file))
    codec = Codec(path, eot)
    tokens = tokenize(documents, codec, split, folder / CACHE, workers)
    splits = {name: write_split(tokens, name, folder, codec.dtype) for name in SPLITS}
    empty = [name for name in SPLITS if fractions.get(name, 1) and not splits[name]["documents"]]
    if empty:
        total = sum(entry["documents"] for entry in splits.values())
        found = f"source={settings['source']}: no document in {' and '.join(empty)}, of {total} with text"
        more = "separator= divides a text file into documents, val_fraction=0 test_fraction=0 leaves all to training"
        raise ValueError(f"{found}; {more}")
    return {
        "format": FORMAT,
        "dtype": codec.dtype,
        "vocab_size": codec.vocab_size,
        "eot": codec.eot,
        "tokenizer": {"file": path and TOKENIZER, "eot": eot},
        "splits": splits,
        "skipped": skipped,
        "made_from": settings,
        "source": files,
    }


def tokenize(
    documents: "Dataset", codec: Codec, split: Callable[[bytes], str], cache: Path, workers: int | None
) -> "Dataset":
    """Returns a data set with the columns ids (a list of tokens, `eot` last), split (index in SPLITS) and bytes.

    Raises:
        ValueError: the system has ended a process.
    """
    from datasets import Features, List, Value

    columns = {"ids": List(Value(codec.dtype)), "split": Value("uint8"), "bytes": Value("int64")}
    options: Any = {"batched": True, "batch_size": 100, "writer_batch_size": 100, "desc": "tokens"}
    options |= {"features": Features(columns), "num_proc": workers}
    encode = partial(_encode, codec=codec, split=split)
    cache.mkdir(exist_ok=True)
    try:
        file = str(cache / "tokens.arrow")
        return documents.map(encode, remove_columns=documents.column_names, cache_file_name=file, **options)
    except RuntimeError as error:
        raise ValueError(f"{root_cause(error)}; fewer workers= need less memory") from error


def _encode(batch: dict[str, list[str | None]], codec: Codec, split: Callable[[bytes], str]) -> dict[str, list[Any]]:
    (rows,) = batch.values()
    texts = [text for text in rows if text and text.strip()]
    return {
        "ids": [np.array([*codec.encode(text), codec.eot], codec.dtype) for text in texts],
        "split": [SPLITS.index(split(text.encode())) for text in texts],
        "bytes": [len(text.encode()) for text in texts],
    }


def write_split(tokens: "Dataset", name: str, folder: Path, dtype: str) -> dict[str, Any]:
    """Writes what `tokenize` returned for a split as shards, and returns its entry in meta.json."""
    entry: dict[str, Any] = {"bytes": 0, "documents": 0, "shards": []}
    waiting: list[np.ndarray] = []

    def write() -> None:
        file, ids = f"{name}-{len(entry['shards']):05}.bin", np.concatenate(waiting)
        utils.replace(folder / file, ids.astype(DTYPES[dtype]).tofile)
        entry["shards"].append({"file": file, "tokens": len(ids)})
        waiting.clear()

    for table in tokens.with_format("arrow").iter(1000):
        rows = table.filter(table["split"].to_numpy() == SPLITS.index(name))
        if len(rows):
            waiting.append(rows["ids"].combine_chunks().flatten().to_numpy())
            entry["bytes"] += int(rows["bytes"].to_numpy().sum())
            entry["documents"] += len(rows)
        if sum(ids.nbytes for ids in waiting) >= SHARD:
            write()
    if waiting:
        write()
    return entry


def _training_texts(documents: "Dataset", split: Callable[[bytes], str]) -> Iterator[str]:
    """Yields the documents to train on, or every n-th where they are more than `FOR_TOKENIZER`, long ones in pieces."""
    step = max(1, documents.data.nbytes // FOR_TOKENIZER)
    for batch in documents.select(range(0, len(documents), step)).iter(100):
        for text in next(iter(batch.values())):
            if text and split(text.encode()) == "train":
                yield from pieces(text)
