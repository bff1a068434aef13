"""Text to tokens and back."""

import itertools
import pickle
from pathlib import Path

import pytest

from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.data.tokens_text import Bytes, Codec, Tokenizer, codec_of, train_tokenizer

TEXT = "naïve café — 😀 <|endoftext|>\n\tdone ✓"


def trained(path: Path, eot: str = "<|endoftext|>") -> Path:
    train_tokenizer(["the cat sat on the mat, the café"] * 3, 280, eot).save(str(path))
    return path


@pytest.fixture(params=["bytes", "tokenizer"])
def codec(request, tmp_path) -> Codec:
    return Bytes() if request.param == "bytes" else Tokenizer(trained(tmp_path / "tokenizer.json"))


def test_text_comes_back_and_nothing_in_it_ends_a_document(codec):
    ids = codec.encode(TEXT)
    assert codec.decode(ids) == TEXT
    assert codec.eot not in ids
    assert codec.decode([codec.eot, *ids, codec.eot]) == TEXT
    assert codec.encode("") == []
    assert max(ids) < codec.vocab_size


def test_streamed_text_waits_for_whole_characters(codec):
    ids = codec.encode(TEXT)
    shown = [codec.decode(ids[:count]) for count in range(len(ids) + 1)]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(shown))
    assert all("\N{REPLACEMENT CHARACTER}" not in text for text in shown)
    assert len(set(shown)) < len(shown)


def test_a_tokenizer_neither_cuts_nor_pads(tmp_path):
    from tokenizers import Tokenizer as Library

    library = Library.from_file(str(trained(tmp_path / "plain.json")))
    library.enable_truncation(3)
    library.enable_padding(length=50)
    library.save(str(tmp_path / "cutting.json"))
    expected = Tokenizer(tmp_path / "plain.json").encode(TEXT)
    cutting = Tokenizer(tmp_path / "cutting.json")
    assert cutting.encode(TEXT) == pickle.loads(pickle.dumps(cutting)).encode(TEXT) == expected
    assert len(expected) > 3


@pytest.mark.parametrize(
    ("content", "eot", "words"), [(None, "", "no end-of-text"), (None, "<stop>", "<stop>"), ("{}", "", "no tokenizer")]
)
def test_tokenizers_that_cannot_be_are_refused(tmp_path, content, eot, words):
    path = trained(tmp_path / "tokenizer.json", eot="<end>")
    assert Tokenizer(path, "<end>").eot == 0
    if content:
        path.write_text(content)
    with pytest.raises(UsageError, match=words):
        Tokenizer(path, *[eot] * bool(eot))


def test_the_codec_of_text_is_bytes():
    assert isinstance(codec_of({"name": "text", "root": "/gone"}), Bytes)
    with pytest.raises(UsageError, match="/gone"):
        codec_of({"name": "tokens", "root": "/gone"})
