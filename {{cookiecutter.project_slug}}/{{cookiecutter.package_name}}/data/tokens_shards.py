"""Prepared tokens on disk: files of nothing but tokens, and a meta.json that says what they are.

    {"format": 1, "dtype": "uint16", "vocab_size": 4096, "eot": 0,
     "tokenizer": {"file": "tokenizer.json", "sha256": "..."},          (file null: the tokens are bytes)
     "splits": {"train": {"bytes": 9, "documents": 1, "shards": [{"file": "train-00000.bin", "tokens": 4, "max": 99}]},
                "val": ..., "test": ...},
     "made_from": {...}}                                                (the settings of prepare.py)

Tokens are little-endian; every document is followed by `eot`, and a shard may end within one.
"""

from pathlib import Path
from typing import Any

from ..errors import UsageError, require
from . import prepared
from .prepared import AGAIN, META
from .tokens_stream import Corpus, Shard, Split, Stream

FORMAT = 1
SPLITS = ("train", "val", "test")
DTYPES = {"uint16": "<u2", "uint32": "<u4"}


def read_meta(given: str) -> dict[str, Any]:
    """The meta.json of a folder of shards, `given` as the user wrote it.

    Raises:
        UsageError: it is not there, or not of this format.
    """
    return prepared.read_meta(given, "prepare.py", "source=... out=...", "*.bin", FORMAT)


def shards(given: str) -> Corpus:
    """The shards of a folder, checked against its meta.json without reading them.

    Raises:
        UsageError: a shard is missing or incomplete, or meta.json does not go with itself or them.
    """
    meta = read_meta(given)
    root = Path(given).expanduser()
    try:
        dtype, vocab_size, eot = DTYPES[meta["dtype"]], int(meta["vocab_size"]), int(meta["eot"])
        require(0 <= eot < vocab_size, f"{root / META}: eot={eot} is beyond the vocabulary of {vocab_size}")
        splits = {}
        for name in SPLITS:
            split = meta["splits"][name]
            pieces = [_shard(root, dtype, vocab_size, **shard) for shard in split["shards"]]
            splits[name] = Split(Stream(pieces), int(split["bytes"]))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{root / META} was not written by prepare.py: {error!r}") from error
    return Corpus(splits, vocab_size, eot)


def _shard(root: Path, dtype: str, vocab_size: int, file: str, tokens: int, max: int) -> Shard:
    path = root / file
    require(path.is_file(), f"{path} is missing; {AGAIN}")
    size, expected = path.stat().st_size, tokens * int(dtype[-1])
    require(size == expected, f"{path} has {size} bytes, and {META} says {expected}; {AGAIN}")
    require(max < vocab_size, f"{path} has the token {max}, beyond the vocabulary of {vocab_size} in {META}")
    return Shard(path, dtype, tokens)
