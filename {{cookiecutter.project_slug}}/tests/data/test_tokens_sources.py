"""Text as bytes: which files are read, and how they are divided."""

import os
import sysconfig
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from {{cookiecutter.package_name}}.data.tokens_sources import relative_files, stdlib, text
from {{cookiecutter.package_name}}.data.tokens_stream import Corpus


def documents(corpus: Corpus) -> dict[str, list[bytes]]:
    found = {}
    for name, split in corpus.splits.items():
        ids = np.empty(len(split.tokens), np.int64)
        split.tokens.read(0, ids)
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
    before = documents(text(str(tmp_path), ["*.txt"], 0.25, 0.25))
    assert sorted(chain(*before.values())) == sorted(b"<%d>" % number * 20 for number in range(60))
    assert all(5 <= len(before[split]) <= 25 for split in ("val", "test"))
    (tmp_path / "new.txt").write_text("new")
    after = documents(text(str(tmp_path), ["*.txt"], 0.25, 0.25))
    assert all(set(before[split]) <= set(after[split]) for split in before)


def test_a_single_file_is_cut_at_two_places(tmp_path):
    content = os.urandom(1023)
    (tmp_path / "book").write_bytes(content)
    splits = text(str(tmp_path / "book"), [], 0.25, 0.25).splits
    assert [len(split.tokens) for split in splits.values()] == [512, 256, 256]
    ids = np.empty(256, np.int64)
    splits["test"].tokens.read(0, ids)
    assert ids.tolist() == [*content[768:], 256]


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path):
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    for path in elsewhere / "one.txt", root / "own" / "two.txt":
        path.parent.mkdir(parents=True)
        path.write_text(path.stem)
    (root / "linked").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(elsewhere)
    assert relative_files(root) == ["linked/one.txt", "own/two.txt"]


def test_the_standard_library_is_source_code_and_always_the_same():
    first, again = (documents(stdlib(0.05, 0.05)) for _ in range(2))
    assert first == again
    sizes = {split: sum(map(len, part)) for split, part in first.items()}
    assert sum(sizes.values()) > 3e6
    assert 0.8 < sizes["train"] / sum(sizes.values()) < 0.97
    library = Path(sysconfig.get_path("stdlib"))
    assert any((library / "heapq.py").read_bytes().replace(b"\r\n", b"\n") in part for part in first.values())


@pytest.mark.parametrize(
    ("root", "include", "words"),
    [("/no/such", ["*.txt"], "exist"), (".", ["*.md"], "include"), (".", ["*.txt"], "no text")],
)
def test_refusals(tmp_path, monkeypatch, root, include, words):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    with pytest.raises(ValueError, match=words):
        text(root, include, 0.1, 0.1)
