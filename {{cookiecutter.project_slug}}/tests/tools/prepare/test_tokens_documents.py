"""Documents from lines, files and datasets: all of them, whole, in parts of any size."""

import json
import sys
import types

import pytest

from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.tools.prepare.documents import Files, Range, Source, open_source

TEXTS = [f"document {number}: é😀" + "\n" * (number % 3) for number in range(200)]


def read(source: Source, size: int = 2000) -> list[str]:
    """Everything, in order, from parts of about this size."""
    parts = source.parts(size)
    assert len(parts) > 1
    return [document for part in parts for document in source.documents(part)]


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
def test_parts_lose_and_repeat_nothing_wherever_they_end(tmp_path, size):
    text = "a\n\n\nb\n\n" + "c" * 50 + "\n\n\n\nd\n\n"
    (tmp_path / "my.txt").write_text(text)
    source = Files(tmp_path, ["my.txt"], "text", "\n\n")
    parts = [[Range("my.txt", at, min(at + size, len(text)))] for at in range(0, len(text), size)]
    found = [document.strip("\n") for part in parts for document in source.documents(part)]
    assert found == ["a", "b", "c" * 50, "d"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "Expecting property name"),
        (b'{"body": "a"}', "expected an object with text in 'text' (text_key=... names another key)"),
        (b'{"text": 3}', "expected an object with text in 'text'"),
        (b"[]", "expected an object with text in 'text'"),
        (b'{"text": "\\ud83d"}', "surrogates not allowed"),
        (b'{"text": "\xff"}', "can't decode byte 0xff"),
    ],
)
def test_bad_lines_are_told_by_their_number(tmp_path, line, words):
    good = [json.dumps({"text": text}).encode() for text in TEXTS]
    path = tmp_path / "my.jsonl"
    path.write_bytes(b"\n".join([*good[:150], b"", line, *good[150:]]))
    with pytest.raises(UsageError) as refusal:
        read(Files(tmp_path, ["my.jsonl"], "text", ""))
    assert str(refusal.value).startswith(f"{path}, line 152: ")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


class Rows:
    """As much of a Hugging Face dataset as is needed, with three rows to a part."""

    column_names = ("id", "text")
    data = types.SimpleNamespace(nbytes=len(TEXTS) * 660)
    _fingerprint = "1a2b"

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, rows: slice) -> dict[str, list[str]]:
        return {"text": TEXTS[rows]}


def test_a_hugging_face_dataset(monkeypatch):
    asked = []

    def load_dataset(*args, **options) -> Rows:
        asked.append((args, options))
        return Rows()

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert read(open_source("hf:someone/something", "", "text", "", "", "validation")) == TEXTS
    assert asked == [(("someone/something", None), {"split": "validation"})]
    with pytest.raises(UsageError, match="text_key=body: hf:someone/something has no such column; it has id, text"):
        open_source("hf:someone/something", "", "body", "", "", "train")
