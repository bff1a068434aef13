"""The tokens of a data set: of the standard library or of text files, in memory, or in shards on disk.

Text is taken as the bytes of UTF-8: tokens 0 to 255 are the bytes, 256 ends a document. Shards, by prepare.py, hold
nothing but little-endian tokens, and meta.json describes them:

    {"format": 1, "dtype": "uint16", "vocab_size": 4096, "eot": 0,
     "tokenizer": {"file": "tokenizer.json", "eot": ""},                           (file null: the tokens are bytes)
     "splits": {"train": {"bytes": 9, "documents": 1, "shards": [{"file": "train-00000.bin", "tokens": 4}]},
                "val": ..., "test": ...},
     "skipped": [],                                                   (records that are no text, and why, in words)
     "made_from": {...}, "source": ...}                                            (see prepared.py)
"""

import hashlib
import os
import sysconfig
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config.errors import first_line
from . import prepared
from .prepared import AGAIN, META
from .tokens_files import printable, read_text, text_files

EOT = 256
VOCAB_SIZE = 257

FORMAT = 1
SPLITS = ("train", "val", "test")
DTYPES = {"uint16": "<u2", "uint32": "<u4"}
MAX_OPEN = 256  # shards that are mapped at a time: each takes a file descriptor, and systems allow about 1,000

# Folders of the standard library that some distributions package apart or change, tests, and tables.
LEFT_OUT = {
    *("ensurepip", "distutils", "idlelib", "lib2to3", "pip", "setuptools", "tkinter", "turtledemo"),
    *("site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "encodings", "pydoc_data"),
}
LOCAL = (".", "_sysconfigdata", "sitecustomize.", "usercustomize.", "config-")  # beginnings of other names left out


@dataclass(frozen=True)
class Shard:
    """A file of tokens, which is mapped when it is read."""

    path: Path
    dtype: str
    tokens: int

    def __len__(self) -> int:
        return self.tokens

    def __getitem__(self, part: slice) -> np.ndarray:
        return _map(self.path, self.dtype)[part]


@lru_cache(MAX_OPEN)
def _map(path: Path, dtype: str) -> np.ndarray:
    return np.memmap(path, dtype, "r")


class Stream:
    """The tokens of arrays and shards, one after the other."""

    def __init__(self, pieces: Sequence[np.ndarray | Shard]) -> None:
        self.pieces = pieces
        self.ends = list(accumulate(map(len, pieces)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def read(self, start: int, out: np.ndarray) -> None:
        """Fills `out` (N,), of any integer type, with the tokens from `start` on."""
        number, filled = bisect_right(self.ends, start), 0
        while filled < len(out):
            piece = self.pieces[number]
            begin = start + filled - (self.ends[number] - len(piece))
            part = piece[begin : begin + len(out) - filled]
            out[filled : filled + len(part)] = part
            number, filled = number + 1, filled + len(part)


class Split(NamedTuple):
    """Documents, each followed by the end-of-text token, and their size in bytes of text."""

    tokens: Stream
    bytes: int


class Corpus(NamedTuple):
    """The splits train, val and test, in tokens 0 to vocab_size - 1; `eot` ends every document.

    `skipped` has the files that are no text, and why.
    """

    splits: dict[str, Split]
    vocab_size: int
    eot: int
    skipped: Sequence[str] = ()


def stdlib(val_fraction: float, test_fraction: float) -> Corpus:
    """Returns the source code of the running Python's standard library, divided by file.

    Raises:
        ValueError: this Python came without sources.
    """
    root, names = Path(sysconfig.get_path("stdlib")), []
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith(LOCAL)]
        paths = [Path(parent, name) for name in files if name.endswith(".py") and not name.startswith(LOCAL)]
        names += [path.relative_to(root).as_posix() for path in paths]
    if not names:
        raise ValueError(f"{root} has no .py files; take text of your own, or a Python that has its sources")
    # Some distributions end lines as Windows does.
    documents = {name: (root / name).read_bytes().replace(b"\r\n", b"\n") for name in sorted(names)}
    return divide(documents, val_fraction, test_fraction)


def text(
    path: str, include: Sequence[str], encoding: str, skip: bool, val_fraction: float, test_fraction: float
) -> Corpus:
    """Returns the contents of `text_files`, divided by file.

    Args:
        encoding: of files without a byte order mark.
        skip: leaves out files that are no text.

    Raises:
        ValueError: there is nothing to read, or a file is no text.
    """
    root, documents, skipped = Path(path).expanduser(), {}, []
    for file in text_files(path, include):
        try:
            documents[file.relative_to(root).as_posix()] = "".join(read_text(file, encoding)).encode()
        except Exception as error:  # each compression has a class of its own
            skipped.append(f"{printable(file)}: {first_line(error)}")
            if not skip:
                raise ValueError(f"{skipped[0]}; on_error=skip leaves the file out") from error
    if not any(documents.values()):
        raise ValueError(f"{path} has no text: every file is empty, or no text")
    return divide(documents, val_fraction, test_fraction)._replace(skipped=skipped)


def read_shards(folder: str) -> Corpus:
    """Returns the shards of a folder, which must have the sizes that its meta.json says.

    Raises:
        ValueError: meta.json is missing or damaged, or a shard is.
    """
    meta, root = read_meta(folder), Path(folder).expanduser()
    with prepared.reading(root / META):
        dtype, vocab_size, eot = np.dtype(DTYPES[meta["dtype"]]), int(meta["vocab_size"]), int(meta["eot"])
        entries = {name: meta["splits"][name] for name in SPLITS}
        shards = {
            name: [Shard(root / one["file"], dtype.str, one["tokens"]) for one in entry["shards"]]
            for name, entry in entries.items()
        }
        splits = {name: Split(Stream(shards[name]), int(entry["bytes"])) for name, entry in entries.items()}
    for shard in chain(*shards.values()):
        if not shard.path.is_file() or shard.path.stat().st_size != len(shard) * dtype.itemsize:
            raise ValueError(f"{shard.path} is not the file of {len(shard)} tokens that {META} describes; {AGAIN}")
    return Corpus(splits, vocab_size, eot)


def read_meta(folder: str) -> dict[str, Any]:
    """Returns the meta.json of a folder of shards."""
    return prepared.read_meta(folder, "source=... out=...", FORMAT)


def divide(documents: dict[str, bytes], val_fraction: float, test_fraction: float) -> Corpus:
    """Divides documents by the hash of their names, so that a new document moves none of the others.

    Where that leaves a split empty that should not be, as with one document, all of them, one after the other, are cut
    at two places instead: first train, then val, then test.
    """
    fractions = {"train": 1 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    parts: dict[str, list[bytes]] = {name: [] for name in SPLITS}
    for name, content in documents.items():
        parts[split_of(name.encode("utf-8", "surrogateescape"), val_fraction, test_fraction)].append(content)
    tokens = {name: join(contents) for name, contents in parts.items()}
    if any(fraction and not len(tokens[name]) for name, fraction in fractions.items()):
        everything = join(list(documents.values()))
        borders = [round(len(everything) * (1 - both)) for both in (val_fraction + test_fraction, test_fraction)]
        tokens = dict(zip(SPLITS, np.split(everything, borders), strict=True))
    splits = {name: Split(Stream([ids]), int(np.count_nonzero(ids != EOT))) for name, ids in tokens.items()}
    return Corpus(splits, VOCAB_SIZE, EOT)


def join(documents: Sequence[bytes]) -> np.ndarray:
    """Returns the documents as tokens (N,), each followed by the end-of-text token."""
    end = np.array([EOT], np.uint16)
    pieces = [part for document in documents for part in (np.frombuffer(document, np.uint8), end)]
    return np.concatenate([end[:0], *pieces])


def split_of(key: bytes, val_fraction: float, test_fraction: float) -> str:
    """Returns the split of a document by the hash of `key`, the same on every machine."""
    place = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") / 2**64
    return "test" if place < test_fraction else "val" if place < test_fraction + val_fraction else "train"
