"""Long sequences of tokens that lie in several pieces, in memory or on disk, and are read as one."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAX_OPEN = 256  # files mapped at a time: each takes a file descriptor, and systems allow about 1,000


class Shard(NamedTuple):
    """A file of nothing but tokens."""

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
    """Documents, each followed by the end-of-text token, and how many bytes of text they are."""

    tokens: Stream
    bytes: int


class Corpus(NamedTuple):
    """train, val and test, in tokens 0 to vocab_size - 1; `eot` ends every document."""

    splits: dict[str, Split]
    vocab_size: int
    eot: int
