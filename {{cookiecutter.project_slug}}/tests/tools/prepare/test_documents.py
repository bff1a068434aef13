"""Documents from every kind of file, and from data sets: all of them, whole."""

import bz2
import gzip
import json
import lzma
import os
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from {{cookiecutter.package_name}}.tools.prepare import documents as module
from {{cookiecutter.package_name}}.tools.prepare.documents import load_documents, local_files

TEXTS = [f"document {number}: é😀" + "\n" * (number % 3) for number in range(200)]
INCLUDE = "*.txt *.md *.json *.jsonl *.parquet *.gz *.bz2 *.xz"
OPTIONS: dict[str, Any] = {
    **{"text_key": "text", "separator": "", "subset": "", "hf_split": "train"},
    **{"encoding": "utf-8", "on_error": "stop", "max_skipped": 9},
}


def jsonl(texts: list[str]) -> bytes:
    """Lines with another key whose type differs from line to line."""
    rows = [{"meta": number if number % 2 else {"a": "b"}, "text": text} for number, text in enumerate(texts)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read(source: Path, cache: Path, workers: int | None = None, **options: Any) -> list[str]:
    files = local_files(str(source), INCLUDE)
    found, _ = load_documents(files, OPTIONS | {"source": str(source), **options}, cache, workers)
    assert found.column_names == ["text"]
    return list(found["text"])


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
    (root / "e.MD.gz").write_bytes(gzip.compress(b"with\r\nline ends\r\n"))
    (root / "f.txt.bz2").write_bytes(bz2.compress(TEXTS[160].encode()))
    (root / "picture.png").write_bytes(b"\x89PNG")
    found = read(root, tmp_path / "cache", workers=workers)
    assert found == [*TEXTS[:160], "with\r\nline ends\r\n", TEXTS[160]]


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


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "A.NDJSON"])
@pytest.mark.parametrize("form", ["lines", "array", "object"])
def test_json_by_its_content(tmp_path: Path, name: str, form: str) -> None:
    rows = [{"text": text} for text in TEXTS[:3]]
    contents = {"lines": jsonl(TEXTS[:3]).decode(), "array": json.dumps(rows, indent=1)}
    contents["object"] = json.dumps(rows[0], indent=1)
    (tmp_path / name).write_text(contents[form], encoding="utf-16")
    assert read(tmp_path / name, tmp_path / "cache") == TEXTS[: 1 if form == "object" else 3]


def test_zstandard(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(jsonl(TEXTS)))
    assert read(tmp_path / "a.jsonl.zst", tmp_path / "cache") == TEXTS


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_of_files_that_are_no_text(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9 ::*")
    root.mkdir()
    (root / "~ [a].TXT").write_text("a")
    (root / os.fsdecode(b"\xe9.txt")).write_bytes(b"\xe9")
    options = OPTIONS | {"source": str(root), "on_error": "skip"}
    found, errors = load_documents(local_files(str(root), INCLUDE), options, tmp_path / "cache", None)
    assert list(found["text"]) == ["a", None]
    assert [r"caf\xe9 ::*/\xe9.txt: line 1" in one for one in errors] == [True]


def test_an_encoding_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("日本語".encode("shift_jis"))
    (tmp_path / "b.jsonl").write_bytes('{"text": "日本語"}\n'.encode("shift_jis"))
    (tmp_path / "c.txt").write_bytes("日本語".encode("utf-16"))
    assert read(tmp_path, tmp_path / "cache", encoding="shift_jis") == ["日本語"] * 3


BAD = {
    "a.jsonl": b'{"text": "a"}\n{"text": null}\n\n{"text": "b"}\n{"body": 1}\n{"text": \n"c"\n{"text": "d"}\n'
    b'{"text": "x\\u0000"}\n{"text": "\xff"}\n{"text": "e"}',
    "b.json": b'[{"text": "f"}, 3, {"text": {"b": "c"}}, {"text": "g"}]',
    "d.txt": b"h|i\ni|\0|k",
}
ERRORS = {
    "a.jsonl": ["line 2", "line 5", "line 6", "line 7", "line 9", "line 10"],
    **{"b.json": ["record 2", "record 3"], "c.parquet": ["row 2"], "d.txt": ["line 2"]},
}


@pytest.mark.parametrize("workers", [None, 2])
def test_bad_records_are_told_with_their_places_or_skipped(tmp_path: Path, monkeypatch, workers: int | None) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    for name, content in BAD.items():
        (tmp_path / name).write_bytes(content)
    datasets.Dataset.from_dict({"text": ["p", None, "q"]}).to_parquet(tmp_path / "c.parquet")
    options: dict[str, Any] = {"source": str(tmp_path), "separator": "|"}
    for name, places in ERRORS.items():
        with pytest.raises(ValueError, match=f"{name}: {places[0]}: .*on_error=skip"):
            read(tmp_path / name, tmp_path / "cache", workers, separator="|")
    files = local_files(str(tmp_path), INCLUDE)
    skip = OPTIONS | options | {"on_error": "skip", "max_skipped": 10}
    found, errors = load_documents(files, skip, tmp_path / "cache", workers)
    assert [text for text in found["text"] if text] == [*"abdefgpqh"]
    assert [error.split(": ")[:2] for error in errors] == [
        [str(tmp_path / name), place] for name, places in ERRORS.items() for place in places
    ]
    with pytest.raises(ValueError, match=r"10 record.*max_skipped=9"):
        load_documents(files, skip | {"max_skipped": 9}, tmp_path / "cache", workers)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"text": "good"}\n{"text": ', "line 2"),
        ("a.jsonl", b"not json", "line 1"),
        ("a.json", b'[{"text": "a"}, ', "a.json"),
        ("a.jsonl", b'{"body": "a", "id": 1}\n', "text_key= names one of body, id"),
        ("a.jsonl", b'{"text": 3}\n', "text_key="),
        ("a.jsonl", b'{"text": "a"}\n{"text": {"b": 3}}\n', "text_key="),
        ("a.parquet", b"no parquet", "a.parquet"),
        ("a.txt", b"caf\xe9", "a.txt: line 1: it is not in utf-8; encoding="),
        ("a.txt.gz", b"no gzip", "a.txt.gz"),
        ("a.txt.gz", gzip.compress(b"text" * 99, mtime=0)[:-9], "a.txt.gz"),
        ("a.txt", gzip.compress(b"text", mtime=0), "a.txt: line 1"),
        ("a.txt", b"", "empty"),
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
    found, _ = load_documents([], options, tmp_path, None)
    assert list(found["text"]) == TEXTS
    assert asked == [("someone/something", None, "validation")]
    with pytest.raises(ValueError, match="no text in body"):
        load_documents([], options | {"text_key": "body"}, tmp_path, None)
    with pytest.raises(ValueError, match="source=hf:no/such: no network"):
        load_documents([], options | {"source": "hf:no/such"}, tmp_path, None)


def test_rows_of_the_hub_that_are_null(monkeypatch, tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", None, "b"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    with pytest.raises(ValueError, match="row 2: it is null; on_error=skip"):
        load_documents([], OPTIONS | {"source": "hf:x"}, tmp_path, None)
    _, errors = load_documents([], OPTIONS | {"source": "hf:x", "on_error": "skip"}, tmp_path, None)
    assert errors == ["row 2: it is null"]
