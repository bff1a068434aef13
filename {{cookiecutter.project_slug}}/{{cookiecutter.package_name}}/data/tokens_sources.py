"""Text as bytes: tokens 0 to 255 are the bytes, 256 ends a document. Where it comes from, and how it is divided."""

import hashlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import UsageError, require
from .tokens_stream import Corpus, Split, Stream

EOT = 256
VOCAB_SIZE = 257

# Of the standard library: what some distributions package apart or change, tests, and tables that are no code.
APART = {"ensurepip", "distutils", "idlelib", "lib2to3", "pip", "setuptools", "tkinter", "turtledemo"}
ELSEWHERE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
TABLES = {"encodings", "pydoc_data"}
LOCAL = ("_sysconfigdata", "sitecustomize.", "usercustomize.")


def stdlib(val_fraction: float, test_fraction: float) -> Corpus:
    """The source of the running Python's own library, divided by file.

    Raises:
        UsageError: this Python came without sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    names = [name for name in relative_files(root, APART | ELSEWHERE | TABLES) if name.endswith(".py")]
    names = [name for name in names if not name.rpartition("/")[2].startswith(LOCAL) and not name.startswith("config-")]
    instead = "take data=text data.root=FOLDER, or a Python that has its sources"
    require(bool(names), f"data=stdlib: {root} holds no .py files; {instead}")
    # Some distributions end lines as Windows does.
    return divided({name: read(root / name).replace(b"\r\n", b"\n") for name in names}, val_fraction, test_fraction)


def text(given: str, include: Sequence[str], val_fraction: float, test_fraction: float) -> Corpus:
    """A file, or the files below a folder whose names match a pattern of `include`; `given` is as the user wrote it.

    Raises:
        UsageError: there is nothing to read.
    """
    root = Path(given).expanduser()
    require(bool(given), "data.root is not set: data.root=PATH names a text file or a folder of them")
    require(root.exists(), f"data.root={given} does not exist: expected a text file or a folder of them")
    if root.is_file():
        documents = {root.name: read(root)}
    else:
        names = matching_files(root, f"data.root={given}", include, "data.include")
        documents = {name: read(root / name) for name in names}
    require(any(documents.values()), f"data.root={given} holds no text: every file is empty")
    return divided(documents, val_fraction, test_fraction)


def divided(documents: dict[str, bytes], val_fraction: float, test_fraction: float) -> Corpus:
    """Train, val and test by the hash of each document's name, so that a new document moves none of the others.

    Where that leaves a split empty that should not be, as with one document, all of them, one after the other, are cut
    at two places instead: first train, then val, then test.
    """
    fractions = {"val": val_fraction, "test": test_fraction, "train": 1 - val_fraction - test_fraction}
    parts: dict[str, list[bytes]] = {"train": [], "val": [], "test": []}
    for name, content in documents.items():
        parts[split_of(name.encode("utf-8", "surrogateescape"), val_fraction, test_fraction)].append(content)
    tokens = {name: joined(contents) for name, contents in parts.items()}
    if any(fraction and not len(tokens[name]) for name, fraction in fractions.items()):
        everything = joined(list(documents.values()))
        borders = [round(len(everything) * (1 - both)) for both in (val_fraction + test_fraction, test_fraction)]
        tokens = dict(zip(parts, np.split(everything, borders), strict=True))
    splits = {name: Split(Stream([ids]), int(np.count_nonzero(ids != EOT))) for name, ids in tokens.items()}
    return Corpus(splits, VOCAB_SIZE, EOT)


def joined(documents: Sequence[bytes]) -> np.ndarray:
    """The documents as tokens (N,), each followed by the end-of-text token."""
    ids = np.empty(sum(map(len, documents)) + len(documents), np.uint16)
    end = 0
    for document in documents:
        start, end = end, end + len(document) + 1
        ids[start : end - 1] = np.frombuffer(document, np.uint8)
        ids[end - 1] = EOT
    return ids


def split_of(key: bytes, val_fraction: float, test_fraction: float) -> str:
    """Where a document belongs: a function of the key alone, the same on every machine."""
    place = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") / 2**64
    return "test" if place < test_fraction else "val" if place < test_fraction + val_fraction else "train"


def matching_files(root: Path, source: str, include: Sequence[str], key: str) -> list[str]:
    """Files below `root` that match a pattern of `include`; `source` and `key` are what the user calls the two.

    Raises:
        UsageError: there are none.
    """
    patterns = bool(include) and all(isinstance(pattern, str) and pattern for pattern in include)
    require(patterns, f"{key}={list(include)}: expected patterns of file names, such as *.txt")
    names = [name for name in relative_files(root) if any(Path(name).match(pattern) for pattern in include)]
    require(bool(names), f"{source} has no file like {' '.join(include)}; {key}=... sets which")
    return names


def relative_files(root: Path, without: set[str] | None = None) -> list[str]:
    """Files below `root` by their relative POSIX paths, sorted; no hidden ones, and no folders of these names.

    Links to folders elsewhere are followed, a folder that several lead to once. What is below `root` has its own path.
    """
    top, seen = root.resolve(), set[Path]()

    def walk() -> Iterator[str]:
        for parent, folders, names in os.walk(root, followlinks=True):
            real = Path(parent).resolve()
            if real in seen or (os.path.islink(parent) and parent != str(root) and real.is_relative_to(top)):
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in (without or ()))
            for name in names:
                if not name.startswith("."):
                    yield (Path(parent) / name).relative_to(root).as_posix()

    return sorted(walk())


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
