"""Documents from files or from the Hugging Face hub, as `datasets.Dataset`s with one column of text."""

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.errors import UsageError, require
from ...data.tokens_sources import matching_files

if TYPE_CHECKING:
    from datasets import Dataset

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
LOADERS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}  # of load_dataset; else text
CHUNK = 2**24  # characters of a text file that are read at a time


def local_files(source: str, include: str) -> list[Path]:
    """Returns the files that `source=` of prepare.py names, sorted; none for a data set of the hub.

    Raises:
        UsageError: the path does not exist, or no file matches `include`.
    """
    if source.startswith("hf:"):
        return []
    require(bool(source), "source is not set: source=PATH names a file or folder, source=hf:NAME a data set of the hub")
    path = Path(source).expanduser()
    require(path.exists(), f"source={source} does not exist: expected a file, a folder or hf:NAME")
    try:
        return [path] if path.is_file() else [path / name for name in matching_files(path, include.split())]
    except ValueError as error:
        raise UsageError(f"source={source}: {error} (include=)") from error


def load_documents(
    source: str, files: list[Path], text_key: str, separator: str, subset: str, hf_split: str, cache: Path, workers: int
) -> list["Dataset"]:
    """Loads all documents: those of JSON files first, then parquet, then text.

    Args:
        files: of a local source; empty ones are left out.
        cache: folder for what datasets makes of local files. Data sets of the hub stay in its own cache.

    Raises:
        UsageError: the package datasets, the data set or the column `text_key` is missing, or a file cannot be read.
    """
    try:
        import datasets
    except ImportError as error:
        raise UsageError("prepare.py needs the package datasets: uv sync --extra prepare") from error
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are raised, and told once
    groups: dict[str, list[Path]] = {"json": [], "parquet": [], "text": []}
    for file in (file for file in files if file.stat().st_size):
        groups[LOADERS.get(_suffix(file), "text")].append(file)
    options: Any = {"num_proc": workers if workers > 1 else None}
    found = []
    try:
        if source.startswith("hf:"):
            found.append(datasets.load_dataset(source.removeprefix("hf:"), subset or None, split=hf_split, **options))
        options["cache_dir"] = str(cache)
        for loader in ("json", "parquet"):
            if names := [glob.escape(str(file)) for file in groups[loader]]:
                found.append(datasets.load_dataset(loader, data_files=names, split="train", **options))
        if groups["text"]:
            # size and time are part of the cache's key
            stamped = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in groups["text"]]
            given = {"files": stamped, "separator": separator, "text_key": text_key}
            options |= {"features": datasets.Features({text_key: datasets.Value("string")}), "writer_batch_size": 100}
            found.append(datasets.Dataset.from_generator(read_texts, gen_kwargs=given, **options))
    except Exception as error:  # of many classes, some of them the network's
        raise UsageError(f"source={source}: {root_cause(error)}") from error
    for documents in found:
        columns = documents.features
        problem = f"source={source}: no column {text_key!r} of text among {', '.join(columns)}; text_key= names another"
        require(getattr(columns.get(text_key), "dtype", "") in ("string", "large_string"), problem)
    return [documents.select_columns([text_key]) for documents in found]


def read_texts(files: list[tuple[str, int, int]], separator: str, text_key: str) -> Iterator[dict[str, str]]:
    """Yields the documents of text files, compressed or not: each file is one, or what is between separators.

    Raises:
        ValueError: a file is not UTF-8.
    """
    import fsspec

    for path, *_ in files:
        try:
            with fsspec.open(path, "rt", encoding="utf-8", newline="", compression="infer") as file:
                rest = ""
                while part := file.read(CHUNK if separator else -1):
                    *whole, rest = (rest + part).split(separator) if separator else (rest + part,)
                    yield from ({text_key: text} for text in whole)
                yield {text_key: rest}
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason}); convert the file") from error


def root_cause(error: BaseException) -> str:
    """Returns the message of the exception that `error` was raised from, in one line."""
    while error.__cause__ is not None and not isinstance(error, UsageError | ValueError):
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def _suffix(file: Path) -> str:
    name = file.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix
