"""Documents from files or a Hugging Face dataset, in parts that any process can read by itself, in any order."""

import json
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...data.tokens_sources import matching_files
from ...errors import UsageError, require

Part = Any  # what a source makes of itself; it can be pickled


class Source(Protocol):
    def parts(self, size: int) -> Sequence[Part]:
        """All of it, divided into parts of about `size` bytes, always in the same way."""

    def documents(self, part: Part) -> Iterator[str]:
        """The texts of a part, all of them and whole; those that are empty or blank are left out."""

    def state(self) -> Any:
        """What tells, as JSON, whether the source is still the same."""


class Range(NamedTuple):
    """The documents that begin in bytes start to stop of a file."""

    file: str
    start: int
    stop: int


class Files:
    """Text and .jsonl files. Where documents are lines, or have a separator between them, a file has many parts.

    Args:
        names: below the folder `root`.
        text_key: of a line's JSON object.
        separator: of documents in other files; "": each file is one.
    """

    def __init__(self, root: Path, names: Sequence[str], text_key: str, separator: str) -> None:
        self.root, self.names, self.text_key, self.separator = root, names, text_key, separator.encode()

    def parts(self, size: int) -> list[list[Range]]:
        parts: list[list[Range]] = [[]]
        filled = 0
        for name in self.names:
            length = (self.root / name).stat().st_size
            step = size if self._delimiter(name) else max(1, length)
            for start in range(0, length, step):
                stop = min(start + step, length)
                if filled and filled + stop - start > size:
                    parts.append([])
                    filled = 0
                parts[-1].append(Range(name, start, stop))
                filled += stop - start
        return parts if filled else []

    def documents(self, part: Sequence[Range]) -> Iterator[str]:
        for name, start, stop in part:
            path, delimiter = self.root / name, self._delimiter(name)
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                begin, end = (_border(view, place, delimiter) for place in (start, stop))
                content = view[begin:end]
            offset = begin
            for document in content.split(delimiter) if delimiter else [content]:
                if document.strip():
                    text = (self._json if is_jsonl(name) else _decoded)(path, offset, document)
                    if text.strip():
                        yield text
                offset += len(document) + len(delimiter)

    def state(self) -> list[list[Any]]:
        found = [(name, (self.root / name).stat()) for name in self.names]
        return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in found]

    def _delimiter(self, name: str) -> bytes:
        return b"\n" if is_jsonl(name) else self.separator

    def _json(self, path: Path, offset: int, line: bytes) -> str:
        problem = ""
        try:
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get(self.text_key), str):
                record[self.text_key].encode()
                return record[self.text_key]
            problem = f"expected an object with text in {self.text_key!r} (text_key=... names another key)"
        except ValueError as error:  # no JSON, or half of a character
            problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)  # its own line is always 1
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            before = sum(view[at : min(at + 2**20, offset)].count(b"\n") for at in range(0, offset, 2**20))
        raise UsageError(f"{path}, line {before + 1}: {problem}")


class HuggingFace:
    """A dataset of the hub, or whatever else `datasets.load_dataset` takes; it is fetched once, and then mapped.

    Raises:
        UsageError: the library `datasets`, the dataset, or its column `text_key` is missing.
    """

    def __init__(self, name: str, subset: str, split: str, text_key: str) -> None:
        try:
            import datasets
        except ImportError as error:
            raise UsageError(f"source=hf:{name} needs the package datasets: uv sync --extra datasets") from error
        try:
            self.rows = datasets.load_dataset(name, subset or None, split=split)
        except Exception as error:  # of many classes, some of them the network's
            raise UsageError(f"source=hf:{name}: {' '.join(str(error).split())}") from error
        columns = self.rows.column_names
        require(text_key in columns, f"text_key={text_key}: hf:{name} has no such column; it has {', '.join(columns)}")
        self.name, self.text_key = name, text_key

    def parts(self, size: int) -> list[range]:
        count = len(self.rows)
        step = max(1, int(count * size / max(1, self.rows.data.nbytes)))
        return [range(start, min(start + step, count)) for start in range(0, count, step)]

    def documents(self, part: range) -> Iterator[str]:
        for start in range(part.start, part.stop, 1000):
            stop = min(start + 1000, part.stop)
            for number, text in enumerate(self.rows[start:stop][self.text_key], start):
                right = isinstance(text, str)
                require(right, f"hf:{self.name}, row {number}: expected text in {self.text_key!r}")
                if text.strip():
                    yield text

    def state(self) -> list[Any]:
        return [len(self.rows), self.rows._fingerprint]


def open_source(source: str, include: str, text_key: str, separator: str, subset: str, hf_split: str) -> Source:
    """What `source=` of prepare.py names.

    Raises:
        UsageError: there is no such thing, or nothing to read in it.
    """
    if source.startswith("hf:"):
        return HuggingFace(source.removeprefix("hf:"), subset, hf_split, text_key)
    require(bool(source), "source is not set: source=PATH names a file or folder, and source=hf:NAME a dataset")
    path = Path(source).expanduser()
    require(path.exists(), f"source={source} does not exist: expected a file or folder, or hf:NAME for a dataset")
    separator = separator.replace("\\n", "\n").replace("\\t", "\t")
    if path.is_file():
        return Files(path.parent, [path.name], text_key, separator)
    names = matching_files(path, f"source={source}", include.split(), "include")
    return Files(path, names, text_key, separator)


def is_jsonl(name: str) -> bool:
    return name.lower().endswith((".jsonl", ".ndjson"))


def _border(view: mmap.mmap, place: int, delimiter: bytes) -> int:
    """Where the first document behind `place` begins: the same for the part that ends there and the one that starts."""
    if place in (0, len(view)):
        return place
    found = view.find(delimiter, place)
    return len(view) if found < 0 else found + len(delimiter)


def _decoded(path: Path, offset: int, document: bytes) -> str:
    try:
        return document.decode()
    except UnicodeDecodeError as error:
        problem = f"byte {offset + error.start} is {document[error.start]:#04x}"
        raise UsageError(f"{path} is no UTF-8 text: {problem}; convert the file") from error
