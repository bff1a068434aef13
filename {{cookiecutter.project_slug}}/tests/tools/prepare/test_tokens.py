"""prepare.py source=...: from documents to shards, the same whoever makes them and however often they are stopped."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

import prepare
from {{cookiecutter.package_name}} import utils
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.data.tokens import Tokens
from {{cookiecutter.package_name}}.data.tokens_text import Codec, codec_of
from {{cookiecutter.package_name}}.tools.prepare import tokens as module

from ...runs import ROOT

TEXTS = [f"document {number}: " + "the cat sat on the mat\n" * (number % 7) + "é😀" for number in range(300)]
BPE = {"tokenizer": "train", "vocab_size": 300}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "my.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    return path


def make(source: Path | str, out: Path | str, **options) -> dict[str, Any]:
    """Runs prepare.py, and returns the contents of meta.json."""
    given = {"source": source, "out": out, "val_fraction": 0.1, "test_fraction": 0.1, "workers": 1, **options}
    prepare.main([f"{key}={value}" for key, value in given.items()])
    return json.loads((Path(out) / "meta.json").read_text())


def documents(out: Path) -> dict[str, list[str]]:
    """Returns the texts of the shards of each split, read by numpy."""
    meta = json.loads((out / "meta.json").read_text())
    codec = codec_of({"name": "tokens", "root": str(out)})
    found = {}
    for split, part in meta["splits"].items():
        files = [np.fromfile(out / shard["file"], meta["dtype"]) for shard in part["shards"]]
        ids = np.concatenate(files)
        assert [len(file) for file in files] == [shard["tokens"] for shard in part["shards"]]
        ends = np.flatnonzero(ids == meta["eot"])
        found[split] = [codec.decode(document) for document in np.split(ids, ends + 1)[:-1]]
        assert ends[-1] == len(ids) - 1
        assert len(found[split]) == part["documents"]
        assert sum(len(text.encode()) for text in found[split]) == part["bytes"]
    return found


def everything(found: dict[str, list[str]]) -> list[str]:
    return sorted(itertools.chain(*found.values()))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.mark.parametrize("options", [{}, BPE], ids=["bytes", "train"])
def test_every_document_arrives_whole(lines, tmp_path, options):
    out = tmp_path / "out"
    meta = make(lines, out, **options)
    found = documents(out)
    assert everything(found) == sorted(TEXTS)
    assert found["train"] == [text for text in TEXTS if text in found["train"]], "in their order"
    assert all(10 <= len(found[split]) <= 60 for split in ("val", "test"))
    files = {shard["file"] for split in meta["splits"].values() for shard in split["shards"]}
    assert set(contents(out)) == {"meta.json", *files} | ({"tokenizer.json"} if options else set())
    data = Tokens("tokens", 64, 0, 2, root=str(out))
    assert data.vocab_size == (Codec(out / "tokenizer.json").vocab_size if options else 257)
    assert data.bytes_per_token["train"] > (1.8 if options else 0.9)


def test_a_tokenizer_of_ones_own_and_more_tokens_than_16_bits_hold(lines, tmp_path):
    from tokenizers import AddedToken

    make(lines, tmp_path / "first", **BPE)
    tokenizer = Codec(tmp_path / "first" / "tokenizer.json").tokenizer
    tokenizer.add_tokens([AddedToken(f"<unused {number}>") for number in range(2**16)])
    tokenizer.save(str(tmp_path / "large.json"))
    meta = make(lines, tmp_path / "out", tokenizer=tmp_path / "large.json")
    assert meta["dtype"] == "uint32"
    assert documents(tmp_path / "out") == documents(tmp_path / "first")


def test_a_source_can_be_mended_or_its_bad_records_skipped(tmp_path, capsys):
    source = tmp_path / "my.jsonl"
    bad = "".join(json.dumps({"text": None if i == 70 else text}) + "\n" for i, text in enumerate(TEXTS))
    source.write_text(bad)
    with pytest.raises(UsageError, match="line 71"):
        make(source, tmp_path / "out")
    skipped = make(source, tmp_path / "skipped", on_error="skip")["skipped"]
    assert ["line 71" in one for one in skipped] == [True]
    assert "skipped: 1 record" in capsys.readouterr().out
    assert everything(documents(tmp_path / "skipped")) == sorted(TEXTS[:70] + TEXTS[71:])
    source.write_text(bad.replace("null", '"mended"'))
    assert make(source, tmp_path / "out")["skipped"] == []
    assert "mended" in everything(documents(tmp_path / "out"))


def test_training_on_text_without_spaces_cuts_its_words(tmp_path):
    """Time is the square of a word's length otherwise: a minute for this text."""
    bases = "".join(np.random.default_rng(0).choice([*"ACGT"], 500_000))
    text = "one two  " + bases + "é" * 999 + "漢字😀" * 99 + " " * 999 + "\n" * 99 + "\t" * 99
    (tmp_path / "my.txt").write_text(text)
    make(tmp_path / "my.txt", tmp_path / "out", tokenizer="train", val_fraction=0.0, test_fraction=0.0)
    codec = Codec(tmp_path / "out" / "tokenizer.json")
    assert codec.vocab_size == 4096
    assert codec.decode(np.fromfile(tmp_path / "out" / "train-00000.bin", "<u2")) == text
    exported = PreTrainedTokenizerFast(tokenizer_object=codec.tokenizer)
    assert exported(text, add_special_tokens=False)["input_ids"] == codec.encode(text)
    cut = codec.tokenizer.pre_tokenizer.pre_tokenize_str
    assert max(len(piece) for piece, _ in cut(text)) == 256
    usual = "The usual words aren't cut,\n  not even 12345 or über.\t"
    assert cut(usual) == ByteLevel(add_prefix_space=False).pre_tokenize_str(usual)


def test_a_finished_folder_is_left_alone(lines, tmp_path, monkeypatch, capsys):
    first = make(lines, tmp_path / "out")
    monkeypatch.setattr(module, "tokenize", None)
    assert make(lines, tmp_path / "out") == first
    assert "is complete" in capsys.readouterr().out
    with pytest.raises(UsageError, match="other settings"):
        make(lines, tmp_path / "out", val_fraction=0.2)
    with lines.open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(UsageError, match="source changed"):
        make(lines, tmp_path / "out")


def test_a_shard_ends_where_its_size_is_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 20_000)
    (tmp_path / "my.txt").write_text("\n".join(f"document {number}" for number in range(3000)))
    meta = make(tmp_path / "my.txt", tmp_path / "out", separator=r"\n")
    assert [len(split["shards"]) for split in meta["splits"].values()] == [3, 1, 1]
    assert everything(documents(tmp_path / "out")) == sorted(f"document {number}" for number in range(3000))


def test_files_are_documents_or_have_a_separator(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("\n<|end|>\n".join(TEXTS))
    make(book, tmp_path / "book", separator=r"\n<|end|>\n")
    assert everything(documents(tmp_path / "book")) == sorted(TEXTS)
    with pytest.raises(UsageError, match="separator"):
        make(book, tmp_path / "one")
    assert not (tmp_path / "one").exists()
    assert make(book, tmp_path / "one", val_fraction=0.0, test_fraction=0.0)["splits"]["train"]["documents"] == 1


@pytest.mark.parametrize("place", ["tokenizer.json", "val-00000.bin", "meta.json"])
def test_what_was_interrupted_continues(lines, tmp_path, monkeypatch, place):
    """Two processes make the same files as one."""
    make(lines, tmp_path / "one", **BPE)
    replace = utils.replace

    def breaking(path, write):
        if path.name == place:
            path.with_name(f"{path.name}.1.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        replace(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(utils, "replace", breaking)
        with pytest.raises(KeyboardInterrupt):
            make(lines, tmp_path / "out", **BPE, workers=2)
    with pytest.raises(UsageError, match="not finished"):
        Tokens("tokens", 64, 0, 2, root=str(tmp_path / "out"))
    with pytest.raises(UsageError, match="other settings"):
        make(lines, tmp_path / "out", **BPE, val_fraction=0.2)
    if place != "tokenizer.json":
        monkeypatch.setattr(module, "_encode", lambda *_, **__: 1 / 0)  # the cache has what it made
    make(lines, tmp_path / "out", **BPE, workers=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "one")


@pytest.mark.parametrize(
    "options",
    [
        *({"out": ""}, {"source": ""}, {"source": "/no/such"}, {"val_fraction": 0.5, "test_fraction": 0.5}),
        *({"workers": -1}, {"tokenizer": "/no/tokenizer.json"}, {"vocab_size": 256, "tokenizer": "train"}),
        {"source": "hf:someone/something"},
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused_and_leave_nothing(lines, tmp_path, monkeypatch, options):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    with pytest.raises(UsageError) as refusal:
        make(**{"source": lines, "out": tmp_path / "out", **options})
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", '{"text": " "}\n', '{"text": "a"}\n{"id": 2}\n'])
def test_sources_without_text_leave_nothing(tmp_path, content):
    (tmp_path / "my.jsonl").write_text(content)
    with pytest.raises(UsageError, match="text"):
        make(tmp_path / "my.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="other files"):
        make(tmp_path / "my.jsonl", tmp_path)


@pytest.mark.slow
def test_the_command(lines, tmp_path):
    command = [sys.executable, str(ROOT / "prepare.py"), "out=my data", "val_fraction=0.1", "test_fraction=0.1"]
    done = subprocess.run([*command, f"source={lines}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "data.root='my data'" in done.stdout
    assert everything(documents(tmp_path / "my data")) == sorted(TEXTS)
    wrong = subprocess.run([*command, "sauce=x"], cwd=tmp_path, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean source?" in wrong.stderr
