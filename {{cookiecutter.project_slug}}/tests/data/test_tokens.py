"""Windows of tokens: their contents, and that none is lost."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from {{cookiecutter.package_name}}.data.tokens import Tokens

TEXT: dict[str, Any] = {
    "name": "text",
    "context": 16,
    "vocab_size": 257,
    "batch_size": 4,
    "include": ["*.txt"],
    "val_fraction": 0.25,
    "test_fraction": 0.25,
}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A file of 1,023 bytes, 1,024 tokens: 512 to train on, and 256 in each of the other splits."""
    path = tmp_path / "book.txt"
    path.write_bytes(np.random.default_rng(0).integers(1, 128, 1023).astype(np.uint8).tobytes())
    return path


def tokens_of(book: Path) -> np.ndarray:
    return np.array([*book.read_bytes(), 256])


def data(root: Path, **options) -> Tokens:
    return Tokens(**{**TEXT, "root": str(root), **options})


def test_windows_are_slices_of_the_text_behind_an_end_of_text(book):
    train = data(book).dataset("train")
    expected = torch.tensor([256, *tokens_of(book)[:512]])
    inputs, targets = map(torch.stack, zip(*(train[0, index] for index in range(len(train))), strict=True))
    assert inputs.equal(expected[:-1].view(32, 16))
    assert targets.equal(expected[1:].view(32, 16))


def test_evaluation_fills_up_the_last_window_and_training_leaves_it_out(book):
    tokens = data(book, context=100)
    assert tokens.sizes == {"train": 5, "val": 3, "test": 3}
    inputs, targets = (torch.cat(part).flatten() for part in zip(*tokens.val_dataloader(), strict=True))
    assert targets.tolist() == [*tokens_of(book)[512:768], *[-100] * 44]
    assert inputs.tolist() == [256, *tokens_of(book)[512:768], *[0] * 43]


def test_an_epoch_has_every_window_once_with_and_without_workers(book):
    epochs = [list(data(book, seed=5, workers=workers).train_dataloader()) for workers in (0, 2)]
    one, other = (torch.cat([inputs for inputs, _ in batches]) for batches in epochs)
    assert one.equal(other)
    assert sorted(one.flatten().tolist()) == sorted([256, *tokens_of(book)[:511]])


def test_bytes_per_token(book, tmp_path):
    """The ends of documents are tokens without bytes."""
    assert data(book).bytes_per_token == {"train": 1.0, "val": 1.0, "test": 255 / 256}
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text("é")
    several = data(tmp_path, val_fraction=0.0, test_fraction=0.0)
    assert several.bytes_per_token["train"] == (1023 + 2 + 2) / (1023 + 2 + 2 + 3)
    assert math.isnan(several.bytes_per_token["val"])
    assert several.val_dataloader() == several.test_dataloader() == []


def test_too_little_to_train_on_can_be_evaluated(book):
    tokens = data(book, context=600)
    assert sum((targets != -100).sum() for _, targets in tokens.test_dataloader()) == 256
    with pytest.raises(ValueError, match="512 tokens"):
        tokens.check_trainable(1)


def test_another_vocabulary_is_refused(book):
    assert data(book, vocab_size=0).found == {"vocab_size": 257}
    with pytest.raises(ValueError, match="257"):
        data(book, vocab_size=256)
