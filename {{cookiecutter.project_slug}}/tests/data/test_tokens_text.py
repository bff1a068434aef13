"""Text to tokens and back."""

import pickle
from pathlib import Path

import pytest
from tokenizers import ByteLevelBPETokenizer

from {{cookiecutter.package_name}}.data import tokens_text
from {{cookiecutter.package_name}}.data.tokens_text import Codec, codec_of

TEXT = "naïve café — 😀 <|endoftext|>\n\tdone ✓ \x00\x7f\x85\u2028"


def save_tokenizer(path: Path, eot: str = "<|endoftext|>") -> Path:
    """A small byte-level BPE that would cut and pad."""
    tokenizer = ByteLevelBPETokenizer()
    texts = ["the cat sat on the mat, the café"] * 3
    tokenizer.train_from_iterator(texts, vocab_size=280, show_progress=False, special_tokens=[eot])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(path))
    return path


@pytest.fixture(params=["bytes", "tokenizer"])
def codec(request, tmp_path) -> Codec:
    return Codec() if request.param == "bytes" else Codec(save_tokenizer(tmp_path / "tokenizer.json"))


def test_text_comes_back_and_nothing_in_it_ends_a_document(codec):
    ids = codec.encode(TEXT)
    assert codec.decode(ids) == TEXT
    assert codec.eot not in ids
    assert codec.decode([codec.eot, *ids, codec.eot]) == TEXT
    assert codec.encode("") == []
    assert max(ids) < codec.vocab_size
    assert pickle.loads(pickle.dumps(codec)).encode(TEXT) == ids


def test_without_a_tokenizer_tokens_are_bytes():
    codec = codec_of({"name": "text", "root": "/gone"})
    assert codec.encode(TEXT) == list(TEXT.encode())
    assert codec.decode(range(256)) == bytes(range(256)).decode(errors="replace")
    assert (codec.eot, codec.vocab_size, codec.dtype) == (256, 257, "uint16")


def test_long_texts_are_encoded_in_pieces(codec, monkeypatch):
    monkeypatch.setattr(tokens_text, "PIECE", 50)
    text = "x" * 120 + "\n" + "line\n" * 100
    assert [len(piece) for piece in tokens_text.pieces(text)][:4] == [50, 50, 46, 50]
    assert codec.decode(codec.encode(text)) == text


@pytest.mark.parametrize(
    ("content", "eot", "words"), [(None, "", "no token"), (None, "<stop>", "<stop>"), ("{}", "", "no tokenizer")]
)
def test_tokenizers_that_cannot_be_are_refused(tmp_path, content, eot, words):
    path = save_tokenizer(tmp_path / "tokenizer.json", eot="<end>")
    assert Codec(path, "<end>").eot == 0
    if content:
        path.write_text(content)
    with pytest.raises(ValueError, match=words):
        Codec(path, eot)


def test_a_folder_that_is_gone_has_no_codec():
    with pytest.raises(ValueError, match="/gone"):
        codec_of({"name": "tokens", "root": "/gone"})
