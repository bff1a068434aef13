"""Text as bytes, how it is divided, and shards on disk."""

import codecs
import gzip
import json
import sysconfig
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from {{cookiecutter.package_name}}.data.tokens_sources import Corpus, Stream, read_shards, stdlib, text

LENGTHS = {"train": [5, 1, 70, 24], "val": [9], "test": []}


def all_tokens(stream: Stream) -> np.ndarray:
    ids = np.empty(len(stream), np.int64)
    stream.read(0, ids)
    return ids


def documents(corpus: Corpus) -> dict[str, list[bytes]]:
    found = {}
    for name, split in corpus.splits.items():
        ids = all_tokens(split.tokens)
        ends = np.flatnonzero(ids == 256)
        assert not len(ids) or ends[-1] == len(ids) - 1
        found[name] = [ids[ids < 256].astype(np.uint8).tobytes() for ids in np.split(ids, ends + 1)[:-1]]
        assert split.bytes == sum(map(len, found[name]))
    return found


def test_a_folder_is_divided_by_file(tmp_path):
    for number in range(60):
        folder = tmp_path / f"chapter{number % 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.txt").write_text(f"<{number}>" * 20)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("secret")
    before = documents(text(str(tmp_path), ["*.txt"], "utf-8", False, 0.25, 0.25))
    assert sorted(chain(*before.values())) == sorted(b"<%d>" % number * 20 for number in range(60))
    assert all(5 <= len(before[split]) <= 25 for split in ("val", "test"))
    (tmp_path / "new.txt").write_text("new")
    after = documents(text(str(tmp_path), ["*.txt"], "utf-8", False, 0.25, 0.25))
    assert all(set(before[split]) <= set(after[split]) for split in before)


def test_a_single_file_is_cut_at_two_places(tmp_path):
    content = np.random.default_rng(0).integers(1, 128, 1023).astype(np.uint8).tobytes()
    (tmp_path / "book").write_bytes(content)
    splits = text(str(tmp_path / "book"), [], "utf-8", False, 0.25, 0.25).splits
    assert [len(split.tokens) for split in splits.values()] == [512, 256, 256]
    assert all_tokens(splits["test"].tokens).tolist() == [*content[768:], 256]


def read(root: Path, encoding: str = "utf-8", skip: bool = False) -> Corpus:
    return text(str(root), ["*.txt"], encoding, skip, 0.0, 0.0)


def test_texts_are_decoded_and_found_whatever_the_case_of_their_names(tmp_path):
    words = "naïve café\r\n漢字 😀\n"
    for number, encoding in enumerate(("utf-8", "utf-8-sig", "utf-16", "utf-32")):
        (tmp_path / f"{number}.TXT").write_bytes(words.encode(encoding))
    (tmp_path / "4.txt").write_bytes(codecs.BOM_UTF16_BE + words.encode("utf-16-be"))
    (tmp_path / "5.Txt.GZ").write_bytes(gzip.compress(words.encode()))
    corpus = read(tmp_path)
    assert documents(corpus)["train"] == [words.encode()] * 6
    assert corpus.skipped == []
    (tmp_path / "4.txt").write_bytes("naïve".encode("cp1252"))
    assert documents(read(tmp_path, "cp1252"))["train"][4] == "naïve".encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"one\ntwo\ncaf\xe9\nfour", "line 3: .*utf-8"),
        (b"one\nt\0wo", "line 2: .*NUL"),
        ("one\ntwo".encode("utf-16-le"), "line 1: .*NUL"),  # without its mark
        (b"\xff\xfea", "line 1"),  # half a character of UTF-16
    ],
)
def test_files_that_are_no_text_are_told_or_skipped(tmp_path, content, words):
    (tmp_path / "a.txt").write_bytes(b"good")
    (tmp_path / "b.txt").write_bytes(content)
    with pytest.raises(ValueError, match=f"b.txt: {words}"):
        read(tmp_path)
    corpus = read(tmp_path, skip=True)
    assert documents(corpus)["train"] == [b"good"]
    assert [str(tmp_path / "b.txt") in one for one in corpus.skipped] == [True]
    (tmp_path / "a.txt").unlink()
    with pytest.raises(ValueError, match="no text"):
        read(tmp_path, skip=True)


def test_the_standard_library_is_source_code_and_always_the_same():
    first, again = (documents(stdlib(0.05, 0.05)) for _ in range(2))
    assert first == again
    sizes = {split: sum(map(len, part)) for split, part in first.items()}
    assert sum(sizes.values()) > 3e6
    assert 0.8 < sizes["train"] / sum(sizes.values()) < 0.97
    library = Path(sysconfig.get_path("stdlib"))
    assert any((library / "heapq.py").read_bytes().replace(b"\r\n", b"\n") in part for part in first.values())


@pytest.mark.parametrize(
    ("root", "include"), [("/no/such", ["*.txt"]), ("", ["*.txt"]), (".", ["*.md"]), (".", ["*.txt"])]
)
def test_sources_without_text_are_refused(tmp_path, monkeypatch, root, include):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    with pytest.raises(ValueError, match="text"):
        text(root, include, "utf-8", False, 0.1, 0.1)


def write(root: Path, vocab_size: int = 1000) -> dict[str, np.ndarray]:
    """Makes a folder of shards by hand, and returns the tokens of each split."""
    random = np.random.default_rng(0)
    dtype = "uint16" if vocab_size <= 2**16 else "uint32"
    meta: dict[str, Any] = {"format": 1, "dtype": dtype, "vocab_size": vocab_size, "eot": 7, "splits": {}}
    everything = {}
    for split, lengths in LENGTHS.items():
        pieces = [random.integers(0, vocab_size, length) for length in lengths]
        everything[split] = np.concatenate([*pieces, np.array([], int)])
        shards = [{"file": f"{split}-{i:05}.bin", "tokens": len(piece)} for i, piece in enumerate(pieces)]
        for shard, piece in zip(shards, pieces, strict=True):
            piece.astype(f"<u{2 if dtype == 'uint16' else 4}").tofile(root / str(shard["file"]))
        meta["splits"][split] = {"bytes": 4 * sum(lengths), "documents": 1, "shards": shards}
    (root / "meta.json").write_text(json.dumps(meta))
    return everything


def change(root: Path, **values) -> None:
    meta = json.loads((root / "meta.json").read_text())
    (root / "meta.json").write_text(json.dumps(meta | values))


@pytest.mark.parametrize("vocab_size", [1000, 100_000])
def test_shards_are_one_sequence(tmp_path, vocab_size):
    everything = write(tmp_path, vocab_size)
    corpus = read_shards(str(tmp_path))
    assert (corpus.vocab_size, corpus.eot) == (vocab_size, 7)
    assert [split.bytes for split in corpus.splits.values()] == [400, 36, 0]
    for name, split in corpus.splits.items():
        assert all_tokens(split.tokens).tolist() == everything[name].tolist()
    window = np.zeros(20, np.int64)
    corpus.splits["train"].tokens.read(3, window)
    assert window.tolist() == everything["train"][3:23].tolist()


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "train-00001.bin").unlink(),
        lambda root: (root / "train-00002.bin").write_bytes(b"half"),
        lambda root: (root / "meta.json").unlink(),
        lambda root: (root / "meta.json").write_text("{"),
        lambda root: change(root, format=2),
        lambda root: change(root, splits={}),
        lambda root: change(root, dtype="uint32"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(tmp_path, damage):
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=str(tmp_path)) as refusal:
        read_shards(str(tmp_path))
    assert "\n" not in str(refusal.value)
