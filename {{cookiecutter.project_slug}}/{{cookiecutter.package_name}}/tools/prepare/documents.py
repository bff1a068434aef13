"""Documents from files or from the Hugging Face hub, as `datasets.Dataset`s with one column of text."""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ...data.tokens_files import COMPRESSED, fault, opened, printable, read_text, text_files

if TYPE_CHECKING:
    from datasets import Dataset

JSON = (".json", ".jsonl", ".ndjson")  # lines or an array, whatever the ending
CHUNK = 2**24  # characters of a text file that are read at a time

# Of a file: path, size in bytes, time of its last change in ns. All three are part of the key of the cache.
State = tuple[str, int, int]


def local_files(source: str, include: str) -> list[State]:
    """Returns the files that `source=` of prepare.py names, sorted; none for a data set of the hub.

    Raises:
        ValueError: there are none.
    """
    files = [] if source.startswith("hf:") else text_files(source, include.split())
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def load_documents(
    files: list[State], settings: Mapping[str, Any], cache: Path, workers: int | None
) -> tuple["Dataset", list[str]]:
    """Loads all documents, in the order of the files.

    Args:
        files: of a local source; empty ones are left out.
        settings: the values of prepare.py's options.
        cache: folder for what datasets makes of local files. Data sets of the hub stay in its own cache.

    Returns:
        Documents, of which some may be null, and why each of these is none.

    Raises:
        ValueError: the package datasets, the data set or the column `text_key` is missing, or a record is no text and
            not to be skipped, or too many are none.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("prepare.py needs the package datasets: uv sync --extra prepare") from error
    source, key, skip = settings["source"], settings["text_key"], settings["on_error"] == "skip"
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are raised and printed once
    options: Any = {"num_proc": workers}
    try:
        if source.startswith("hf:"):
            options |= {"split": settings["hf_split"]}
            found = datasets.load_dataset(source.removeprefix("hf:"), settings["subset"] or None, **options)
            if getattr(found.features.get(key), "dtype", "") not in ("string", "large_string"):
                raise ValueError(f"no text in {key}; text_key= names one of {', '.join(found.features)}")
            nulls = np.flatnonzero(found.data.column(key).is_null())
            errors = [f"row {number + 1}: it is null" for number in nulls]
        else:
            separator = settings["separator"].replace("\\n", "\n").replace("\\t", "\t")
            if not any(size for _, size, _ in files):
                raise ValueError("no text: every file is empty")
            how = {"text_key": key, "separator": separator, "encoding": settings["encoding"], "skip": skip}
            options |= {"cache_dir": str(cache), "writer_batch_size": 100}
            options["features"] = datasets.Features({name: datasets.Value("string") for name in ("text", "error")})
            options["gen_kwargs"] = {"files": [file for file in files if file[1]], **how}
            found = datasets.Dataset.from_generator(read_documents, **options)
            key, errors = "text", found.data.column("error").drop_null().to_pylist()
    except Exception as error:  # of many classes, some of them the network's
        raise ValueError(f"source={source}: {root_cause(error)}") from error
    most = settings["max_skipped"] if skip else 0
    if len(errors) > most:
        hint = f"max_skipped={most} allows fewer" if skip else "on_error=skip leaves it out"
        raise ValueError(f"source={source}: {len(errors)} record(s) are no text, {errors[0]}; {hint}")
    return found.select_columns([key]), errors


def read_documents(
    files: list[State], text_key: str, separator: str, encoding: str, skip: bool
) -> Iterator[dict[str, str | None]]:
    """Yields the documents of files, and with `skip` an error in the place of each that is none.

    After an error of a file as a whole, the rest of the file is left out.

    Raises:
        ValueError: the first error, without `skip`.
    """
    for path, *_ in files:
        for place, text in _places(path, text_key, separator, encoding):
            if isinstance(text, Exception):
                wrong = root_cause(text)
            elif not isinstance(text, str):
                wrong = f"{'null' if text is None else type(text).__name__} in {text_key}; text_key= names another"
            elif not (wrong := fault(text, encoding)):
                yield {"text": text, "error": None}
                continue
            error = ": ".join(filter(None, (printable(path), place, wrong)))
            if not skip:
                raise ValueError(f"{error}; on_error=skip leaves it out")
            yield {"text": None, "error": error}


def _places(path: str, text_key: str, separator: str, encoding: str) -> Iterator[tuple[str, Any]]:
    """Yields every document of a file and its place in it; an exception where it cannot be read."""
    ending = Path(COMPRESSED.sub("", path)).suffix.lower()
    try:
        if ending == ".parquet":
            with opened(path) as file:
                yield from ((f"row {number}", text) for number, text in enumerate(_column(file, text_key), 1))
        elif ending in JSON:
            with opened(path, encoding) as file:
                for place, record in _records(file):
                    yield place, _value(record, text_key)
        else:
            rest = ""
            for part in read_text(path, encoding, CHUNK if separator else -1):
                *whole, rest = (rest + part).split(separator) if separator else (part,)
                yield from (("", text) for text in whole)
            yield "", rest
    except Exception as error:  # each compression has a class of its own
        yield "", error


def _column(file: IO[bytes], name: str) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    table = ParquetFile(file)
    if name not in table.schema_arrow.names:
        raise ValueError(f"no text in {name}; text_key= names one of {', '.join(table.schema_arrow.names)}")
    for batch in table.iter_batches(1000, columns=[name]):
        yield from batch.column(0).to_pylist()


def _records(file: IO[str]) -> Iterator[tuple[str, Any]]:
    """Yields the records of a JSON file, an array, an object or lines, and their places; an exception for bad lines."""
    first = file.readline()
    if first.lstrip().startswith("[") or first.strip() == "{":
        whole = json.loads(first + file.read())
        records = whole if isinstance(whole, list) else [whole]
        yield from ((f"record {number}", record) for number, record in enumerate(records, 1))
        return
    for number, line in enumerate(chain([first], file), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                yield f"line {number}", error


def _value(record: Any, key: str) -> Any:
    if isinstance(record, Exception):
        return record
    if not isinstance(record, dict) or key not in record:
        known = f"; text_key= names one of {', '.join(record)}" if isinstance(record, dict) else ""
        return ValueError(f"no text in {key}{known}")
    return record[key]


def root_cause(error: BaseException) -> str:
    """Returns the message of the exception that `error` was raised from, in one line."""
    while error.__cause__ is not None and not isinstance(error, ValueError):
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
