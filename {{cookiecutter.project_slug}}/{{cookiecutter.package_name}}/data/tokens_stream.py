"""Long sequences of tokens in memory or in shards on disk, and the meta.json that describes the shards.

    {"format": 1, "dtype": "uint16", "vocab_size": 4096, "eot": 0,
     "tokenizer": {"file": "tokenizer.json", "sha256": "..."},          (file null: the tokens are bytes)
     "splits": {"train": {"bytes": 9, "documents": 1, "shards": [{"file": "train-00000.bin", "tokens": 4, "max": 99}]},
                "val": ..., "test": ...},
     "made_from": {...}}                                                (the settings of prepare.py)

A shard holds nothing but little-endian tokens. Every document is followed by `eot`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..config.errors import require
from . import prepared
from .prepared import AGAIN, META

FORMAT = 1
SPLITS = ("train", "val", "test")
DTYPES = {"uint16": "<u2", "uint32": "<u4"}
MAX_OPEN = 256  # files mapped at a time: each takes a file descriptor, and systems allow about 1,000


class Shard(NamedTuple):
    """A file of tokens."""

    path: Path
    dtype: str
    tokens: int


class Stream:
    """Tokens 0 to len(stream) - 1 of all pieces, one after the other. Files are mapped when they are first read.

    Args:
        pieces: arrays (N,) and files, in order.
    """

    def __init__(self, pieces: Sequence[np.ndarray | Shard]) -> None:
        self.pieces = pieces
        self.ends = list(accumulate(piece.tokens if isinstance(piece, Shard) else len(piece) for piece in pieces))
        self._piece = lru_cache(MAX_OPEN)(self._array)

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def read(self, start: int, out: np.ndarray) -> None:
        """Fills `out` (N,), of any integer type, with the tokens from `start` on, across the borders of pieces."""
        number, filled = bisect_right(self.ends, start), 0
        while filled < len(out):
            piece = self._piece(number)
            begin = start + filled - (self.ends[number] - len(piece))
            part = piece[begin : begin + len(out) - filled]
            out[filled : filled + len(part)] = part
            number, filled = number + 1, filled + len(part)

    def _array(self, number: int) -> np.ndarray:
        piece = self.pieces[number]
        return np.asarray(np.memmap(piece.path, piece.dtype, "r")) if isinstance(piece, Shard) else piece

    def __reduce__(self) -> tuple[Any, ...]:
        return Stream, (self.pieces,)  # workers map the files themselves; a pickled map would carry their contents


class Split(NamedTuple):
    """Documents, each followed by the end-of-text token, and their size in bytes of text."""

    tokens: Stream
    bytes: int


class Corpus(NamedTuple):
    """The splits train, val and test, in tokens 0 to vocab_size - 1; `eot` ends every document."""

    splits: dict[str, Split]
    vocab_size: int
    eot: int


def read_meta(folder: str) -> dict[str, Any]:
    """Returns the meta.json of a folder of shards.

    Raises:
        UsageError: it is missing, or of another format.
    """
    return prepared.read_meta(folder, "source=... out=...", "*.bin", FORMAT)


def read_shards(folder: str) -> Corpus:
    """Returns the shards of a folder, checked against its meta.json by their sizes.

    Raises:
        UsageError: a shard is missing or incomplete, or meta.json contradicts itself or the shards.
    """
    meta, root = read_meta(folder), Path(folder).expanduser()

    def shard(file: str, tokens: int, max: int) -> Shard:
        path, expected = root / file, tokens * int(dtype[-1])
        require(path.is_file(), f"{path} is missing; {AGAIN}")
        size = path.stat().st_size
        require(size == expected, f"{path} has {size} bytes, and {META} says {expected}; {AGAIN}")
        require(max < vocab_size, f"{path} has the token {max}, beyond the vocabulary of {vocab_size} in {META}")
        return Shard(path, dtype, tokens)

    with prepared.translate_errors(root / META):
        dtype, vocab_size, eot = DTYPES[meta["dtype"]], int(meta["vocab_size"]), int(meta["eot"])
        require(0 <= eot < vocab_size, f"{root / META}: eot={eot} is beyond the vocabulary of {vocab_size}")
        found = {name: meta["splits"][name] for name in SPLITS}
        streams = {name: Stream([shard(**one) for one in split["shards"]]) for name, split in found.items()}
        splits = {name: Split(stream, int(found[name]["bytes"])) for name, stream in streams.items()}
    return Corpus(splits, vocab_size, eot)
