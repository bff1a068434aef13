"""Other texts, and windows in which tokens are replaced."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.data import tokens
from {{cookiecutter.package_name}}.tools.robustness import text as tokens_shift
from {{cookiecutter.package_name}}.tools.robustness.text import SHARES, ReplacedSet, shifted

SECTION = {"name": "stdlib", "root": ""}


@pytest.fixture(scope="module")
def data():
    return tokens.Tokens(name="stdlib", context=128, vocab_size=257, batch_size=4)


def batch(windows, indices):
    return default_collate([windows[0, index] for index in indices])


def test_share_of_the_inputs_is_replaced_and_no_target(data):
    windows = data.dataset("test")
    inputs, targets = batch(windows, range(300))
    before = torch.zeros_like(inputs, dtype=torch.bool)
    for share in SHARES:
        ours, theirs = batch(ReplacedSet(windows, share), range(300))
        assert theirs.equal(targets)
        changed = ours != inputs
        assert 0.8 * share < changed.float().mean().item() < share, "some are replaced by their like"
        assert not (before & ~changed).any(), "what is replaced stays so at larger shares"
        before = changed
    inputs, everything = (batch(one, range(len(windows)))[0] for one in (windows, ReplacedSet(windows, 1.0)))
    counts = [torch.bincount(ids.flatten(), minlength=257) / ids.numel() for ids in (everything, inputs)]
    assert (counts[0] - counts[1]).abs().max() < 0.01, "by letters as frequent as in the text"


def test_replaced_tokens_follow_from_the_window_alone(data):
    shown = ReplacedSet(data.dataset("test"), 0.2)
    assert shown[0, 5][0].equal(shown[0, 5][0])
    assert not shown[0, 5][0].equal(shown[0, 3][0])
    assert len(shown) == data.sizes["test"]
    nothing = tokens_shift.shifted(data, SECTION, "own", 1)
    assert type(nothing.train_dataloader().dataset) is tokens.WindowSet


@pytest.mark.parametrize("kind", ["prose", "tables"])
def test_other_texts_are_no_part_of_the_library(data, kind):
    other = shifted(data, SECTION, kind, 0)
    split = other.corpus.splits["test"]
    ids = np.empty(len(split.tokens), np.int64)
    split.tokens.read(0, ids)
    assert other.bytes_per_token["test"] == pytest.approx(np.count_nonzero(ids != 256) / len(ids))
    assert 200_000 < split.bytes < 300_000
    train = data.corpus.splits["train"].tokens
    everything = np.empty(len(train), np.int64)
    train.read(0, everything)
    library, text = (bytes(part[part < 256].tolist()).decode() for part in (everything, ids))
    pieces = [text[start : start + 200] for start in range(1000, len(text) - 1000, 20_000)]
    assert len(pieces) > 10
    assert not any(piece in library for piece in pieces)
    assert (" the " in text) == (kind == "prose")
    assert data.corpus.splits["test"].bytes != split.bytes, "the data themselves stay as they were"


def test_other_texts_are_encoded_by_the_run_s_tokenizer(data, monkeypatch):
    codec = SimpleNamespace(eot=7, encode=lambda text: [0, 1, 2])
    monkeypatch.setattr(tokens_shift, "codec_of", lambda section: codec)
    monkeypatch.setattr(tokens_shift, "prose", lambda: ["abcd", "\N{EURO SIGN}"])
    split = shifted(data, SECTION, "prose", 0).corpus.splits["val"]
    ids = np.empty(8, np.int64)
    split.tokens.read(0, ids)
    assert (len(split.tokens), split.bytes, ids.tolist()) == (8, 7, [0, 1, 2, 7, 0, 1, 2, 7])


def test_a_python_without_these_texts(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UsageError, match="pydoc_data"):
        shifted(data, SECTION, "prose", 0)
