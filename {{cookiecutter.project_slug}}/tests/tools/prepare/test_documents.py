"""Documents from every kind of file, and from data sets: all of them, whole."""

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import datasets
import pytest

from {{cookiecutter.package_name}}.tools.prepare import documents as module
from {{cookiecutter.package_name}}.tools.prepare.documents import load_documents, local_files

TEXTS = [f"document {number}: é😀" + "\n" * (number % 3) for number in range(200)]
INCLUDE = "*.txt *.md *.json *.jsonl *.parquet *.gz *.bz2 *.xz"
OPTIONS: dict[str, Any] = {"text_key": "text", "separator": "", "subset": "", "hf_split": "train"}


def jsonl(texts: list[str]) -> bytes:
    """Lines with another key whose type differs from line to line."""
    rows = [{"meta": number if number % 2 else {"a": "b"}, "text": text} for number, text in enumerate(texts)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(source: Path, cache: Path, workers: int | None = None, **options: Any) -> list[str]:
    files = local_files(str(source), INCLUDE)
    parts = load_documents(files, OPTIONS | {"source": str(source), **options}, cache, workers)
    return [row[part.column_names[0]] for part in parts for row in part]


@pytest.mark.parametrize("workers", [None, 2])
def test_a_folder_of_every_kind(tmp_path: Path, workers: int | None) -> None:
    root = tmp_path / "source [1]"
    (root / "deep").mkdir(parents=True)
    (root / "a.jsonl").write_bytes(jsonl(TEXTS[:20]))
    (root / "b.json").write_text(json.dumps([{"text": text} for text in TEXTS[20:40]]))
    (root / "c.jsonl.gz").write_bytes(gzip.compress(jsonl(TEXTS[40:60])))
    (root / "c2.jsonl.xz").write_bytes(lzma.compress(jsonl(TEXTS[60:80])))
    datasets.Dataset.from_dict({"n": [0] * 20, "text": TEXTS[80:100]}).to_parquet(root / "d.parquet")
    for number, text in enumerate(TEXTS[100:160]):
        (root / "deep" / f"{number:03}.txt").write_text(text)
    (root / "e.md.gz").write_bytes(gzip.compress(b"with\r\nline ends\r\n"))
    (root / "f.txt.bz2").write_bytes(bz2.compress(TEXTS[160].encode()))
    (root / "picture.png").write_bytes(b"\x89PNG")
    found = read(root, tmp_path / "cache", workers=workers)
    assert found[:100] == TEXTS[:100]
    assert found[100:] == [*TEXTS[100:160], "with\r\nline ends\r\n", TEXTS[160]]


@pytest.mark.parametrize("chunk", [1, 7, 10**6])
def test_separators_lose_and_repeat_nothing_wherever_a_chunk_ends(tmp_path: Path, monkeypatch, chunk: int) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    (tmp_path / "my.txt").write_text("\n\n".join(["a", "", "b", "c" * 50, "\nd", ""]))
    assert read(tmp_path, tmp_path / "cache", separator="\n\n") == ["a", "", "b", "c" * 50, "\nd", ""]


def test_a_changed_file_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    for name, encode in ("a.jsonl.gz", lambda text: gzip.compress(jsonl([text]))), ("a.txt", str.encode):
        file = tmp_path / name
        file.write_bytes(encode("one"))
        assert read(file, tmp_path / "cache") == ["one"]
        file.write_bytes(encode("other"))
        assert read(file, tmp_path / "cache") == ["other"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"text": "good"}\n{"text": ', ""),
        ("a.jsonl", b"not json", ""),
        ("a.jsonl", b'{"body": "a"}\n', "text_key="),
        ("a.jsonl", b'{"text": 3}\n', "text_key="),
        ("a.jsonl", b'{"text": "a"}\n{"text": {"b": 3}}\n', "text_key="),
        ("a.parquet", b"no parquet", ""),
        ("a.txt", b"caf\xe9", "a.txt is not UTF-8"),
        ("a.txt.gz", b"no gzip", ""),
    ],
)
def test_sources_that_cannot_be_read_are_told_in_one_line(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="source=") as refusal:
        read(tmp_path, tmp_path / "cache")
    assert str(refusal.value).startswith(f"source={tmp_path}: ")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def load_dataset(*args: Any, **options: Any) -> datasets.Dataset:
        asked.append((*args, options["split"]))
        if args[0] == "no/such":
            raise ConnectionError("no\nnetwork")
        return datasets.Dataset.from_dict({"id": list(range(200)), "text": TEXTS})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    options: dict[str, Any] = {**OPTIONS, "hf_split": "validation", "source": "hf:someone/something"}
    (found,) = load_documents([], options, tmp_path, None)
    assert list(found["text"]) == TEXTS
    assert asked == [("someone/something", None, "validation")]
    with pytest.raises(ValueError, match="no text in body"):
        load_documents([], options | {"text_key": "body"}, tmp_path, None)
    with pytest.raises(ValueError, match="source=hf:no/such: no network"):
        load_documents([], options | {"source": "hf:no/such"}, tmp_path, None)
