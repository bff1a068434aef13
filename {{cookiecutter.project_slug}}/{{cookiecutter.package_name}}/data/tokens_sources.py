"""Text as bytes, from the standard library or from files: tokens 0 to 255 are the bytes, 256 ends a document."""

import hashlib
import os
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..config.errors import UsageError, require
from .tokens_stream import Corpus, Split, Stream

EOT = 256
VOCAB_SIZE = 257

# Left out of the standard library: what some distributions package apart or change, tests, and tables.
APART = {"ensurepip", "distutils", "idlelib", "lib2to3", "pip", "setuptools", "tkinter", "turtledemo"}
ELSEWHERE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
TABLES = {"encodings", "pydoc_data"}
LOCAL = ("_sysconfigdata", "sitecustomize.", "usercustomize.", "config-")


def stdlib(val_fraction: float, test_fraction: float) -> Corpus:
    """Returns the source code of the running Python's standard library, divided by file.

    Raises:
        UsageError: this Python came without sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    names = [name for name in relative_files(root, APART | ELSEWHERE | TABLES) if name.endswith(".py")]
    names = [name for name in names if not Path(name).name.startswith(LOCAL[:3]) and not name.startswith(LOCAL[3])]
    require(bool(names), f"{root} holds no .py files: take data=text, or a Python that has its sources")
    # Some distributions end lines as Windows does.
    return divide({name: read(root / name).replace(b"\r\n", b"\n") for name in names}, val_fraction, test_fraction)


def text(path: str, include: Sequence[str], val_fraction: float, test_fraction: float) -> Corpus:
    """Returns a file, or the files below a folder that match a pattern of `include`.

    Raises:
        UsageError: there is nothing to read.
    """
    root = Path(path).expanduser()
    require(bool(path) and root.exists(), f"root={path!r} does not exist: expected a text file or a folder of them")
    names = [root] if root.is_file() else [root / name for name in matching_files(root, include)]
    documents = {name.name if name == root else name.relative_to(root).as_posix(): read(name) for name in names}
    require(any(documents.values()), f"{path} holds no text: every file is empty")
    return divide(documents, val_fraction, test_fraction)


def divide(documents: dict[str, bytes], val_fraction: float, test_fraction: float) -> Corpus:
    """Divides documents by the hash of their names, so that a new document moves none of the others.

    Where that leaves a split empty that should not be, as with one document, all of them, one after the other, are cut
    at two places instead: first train, then val, then test.
    """
    fractions = {"val": val_fraction, "test": test_fraction, "train": 1 - val_fraction - test_fraction}
    parts: dict[str, list[bytes]] = {"train": [], "val": [], "test": []}
    for name, content in documents.items():
        parts[split_of(name.encode("utf-8", "surrogateescape"), val_fraction, test_fraction)].append(content)
    tokens = {name: join(contents) for name, contents in parts.items()}
    if any(fraction and not len(tokens[name]) for name, fraction in fractions.items()):
        everything = join(list(documents.values()))
        borders = [round(len(everything) * (1 - both)) for both in (val_fraction + test_fraction, test_fraction)]
        tokens = dict(zip(parts, np.split(everything, borders), strict=True))
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


def matching_files(root: Path, include: Sequence[str]) -> list[str]:
    """Returns the files below `root` that match a pattern of `include`.

    Raises:
        UsageError: there are none.
    """
    patterns = [str(pattern) for pattern in include if pattern]
    names = [name for name in relative_files(root) if any(Path(name).match(pattern) for pattern in patterns)]
    require(bool(names), f"{root} has no file that matches include, {' '.join(patterns) or 'which is empty'}")
    return names


def relative_files(root: Path, without: set[str] | None = None) -> list[str]:
    """Returns the files below `root` as sorted relative POSIX paths; hidden ones and folders `without` are left out.

    Links to folders are followed, and no folder is read twice.
    """
    found, seen = [], set[str]()
    for parent, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in (without or ()))
        found += [(Path(parent) / name).relative_to(root).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
