"""Files of text: found by the endings of their names, decompressed, decoded, and refused where they hold no text."""

import codecs
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from typing import IO

from fsspec.implementations.local import LocalFileSystem

COMPRESSED = re.compile(r"\.(gz|bz2|xz|zst)$", re.IGNORECASE)
# Byte order marks at the start of files, and the encodings that they tell. UTF-32's mark begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # lone surrogates stand for bytes that cannot be decoded


def _as_surrogate(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udc80", error.end


codecs.register_error("as_surrogate", _as_surrogate)


def text_files(path: str, include: Sequence[str]) -> list[Path]:
    """Returns the file `path`, or the files below that folder whose names match a pattern of `include`, sorted.

    Capitals do not matter, nor does the ending of a compressed file. Hidden files and folders are left out.

    Raises:
        ValueError: there are none.
    """
    root = Path(path).expanduser()
    names = [name for name in glob("**/*", root_dir=root, recursive=True) if (root / name).is_file()]
    files = [root] if root.is_file() else [root / name for name in names if _matches(name, include)]
    if not path or not files:
        raise ValueError(f"{path!r}: expected a text file, or a folder with {' or '.join(include)} in it")
    return sorted(files, key=Path.as_posix)


def _matches(name: str, include: Sequence[str]) -> bool:
    path = f"/{Path(name).as_posix()}".lower()
    paths = (path, COMPRESSED.sub("", path))
    return any(fnmatchcase(one, f"*/{pattern.lower()}") for one in paths for pattern in include)


@contextmanager
def opened(path: Path | str, encoding: str = "") -> Iterator[IO]:
    """Opens a file, compressed or not: as bytes, or as text, in which lone surrogates stand for bytes that are none.

    Args:
        encoding: of a text without a byte order mark.
    """
    files, name = LocalFileSystem(), str(Path(path).absolute())
    with files.open(name, "rb", compression="infer") as file:
        if not encoding:
            yield file
            return
        start = file.read(4)
    encoding = next((found for mark, found in MARKS.items() if start.startswith(mark)), encoding)
    how = {"encoding": encoding, "errors": "as_surrogate", "newline": ""}
    with files.open(name, "rt", compression="infer", **how) as file:
        yield file


def read_text(path: Path | str, encoding: str, size: int = -1) -> Iterator[str]:
    """Yields the text of a file, in pieces of `size` characters.

    Raises:
        ValueError: something in it is no text, with the line.
    """
    line = 1
    with opened(path, encoding) as file:
        while piece := file.read(size):
            if wrong := NO_TEXT.search(piece):
                raise ValueError(f"line {line + piece.count(chr(10), 0, wrong.start())}: {fault(piece, encoding)}")
            line += piece.count("\n")
            yield piece


def fault(text: str, encoding: str) -> str:
    """Returns why a text that `opened` has decoded is none, or an empty text."""
    wrong = NO_TEXT.search(text)
    if wrong is None:
        return ""
    return "it has a NUL character" if wrong[0] == "\0" else f"it is not in {encoding}; encoding= names another"


def printable(path: Path | str) -> str:
    """Returns a path with escapes in the place of bytes that are no text."""
    return os.fsencode(path).decode(errors="backslashreplace")
