"""Documents from files or from the Hugging Face hub, as `datasets.Dataset`s with one column of text."""

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.tokens_sources import text_files

if TYPE_CHECKING:
    from datasets import Dataset

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
LOADERS = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}  # of load_dataset; else text
CHUNK = 2**24  # characters of a text file that are read at a time

State = tuple[str, int, int]  # of a file: path, size in bytes, time of its last change in ns


def local_files(source: str, include: str) -> list[State]:
    """Returns the files that `source=` of prepare.py names, sorted; none for a data set of the hub.

    Raises:
        ValueError: there are none.
    """
    files = [] if source.startswith("hf:") else text_files(source, include.split())
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def load_documents(
    files: list[State], settings: Mapping[str, Any], cache: Path, workers: int | None
) -> list["Dataset"]:
    """Loads all documents: those of JSON files first, then parquet, then text.

    Args:
        files: of a local source; empty ones are left out.
        settings: the values of source, text_key, separator, subset and hf_split, as prepare.py has them.
        cache: folder for what datasets makes of local files. Data sets of the hub stay in its own cache.

    Raises:
        ValueError: the package datasets, the data set or the column `text_key` is missing, or a file cannot be read.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("prepare.py needs the package datasets: uv sync --extra prepare") from error
    source, text_key, separator = (settings[key] for key in ("source", "text_key", "separator"))
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are raised and printed once
    groups: dict[str, list[State]] = {"json": [], "parquet": [], "text": []}
    for file in (file for file in files if file[1]):
        suffixes = [suffix for suffix in Path(file[0].lower()).suffixes if suffix not in COMPRESSED]
        groups[LOADERS.get(suffixes[-1] if suffixes else "", "text")].append(file)
    options: Any = {"num_proc": workers, "split": settings["hf_split"]}
    found = []
    try:
        if source.startswith("hf:"):
            found.append(datasets.load_dataset(source.removeprefix("hf:"), settings["subset"] or None, **options))
        options |= {"split": "train", "cache_dir": str(cache)}
        for loader in ("json", "parquet"):
            if names := [glob.escape(file[0]) for file in groups[loader]]:
                found.append(datasets.load_dataset(loader, data_files=names, **options))
        if groups["text"]:  # sizes and times are part of the cache's key
            options |= {"features": datasets.Features({text_key: datasets.Value("string")}), "writer_batch_size": 100}
            separator = separator.replace("\\n", "\n").replace("\\t", "\t")
            options["gen_kwargs"] = {"files": groups["text"], "separator": separator, "text_key": text_key}
            found.append(datasets.Dataset.from_generator(read_texts, **options))
    except Exception as error:  # of many classes, some of them the network's
        raise ValueError(f"source={source}: {root_cause(error)}") from error
    for columns in (documents.features for documents in found):
        if getattr(columns.get(text_key), "dtype", "") not in ("string", "large_string"):
            raise ValueError(f"source={source}: no text in {text_key}; text_key= names one of {', '.join(columns)}")
    return [documents.select_columns([text_key]) for documents in found]


def read_texts(files: list[State], separator: str, text_key: str) -> Iterator[dict[str, str]]:
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
    while error.__cause__ is not None and not isinstance(error, ValueError):
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
