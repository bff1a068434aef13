"""Windows of tokens: the data module of every file in configs/data/ that says `module: tokens`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import require
from .base import DataModule, check_fractions
from .tokens_shards import shards
from .tokens_sources import stdlib, text
from .tokens_stream import Corpus, Stream

NAMES = ("stdlib", "text", "tokens")
IGNORED = -100  # the target of a position that is not there; PyTorch's losses leave it out

Batch = tuple[Tensor, Tensor]


class Tokens(DataModule):
    """Batches of inputs (B, context) and targets (B, context), int64: each target is the token after its input.

    A split is one long sequence, an end-of-text token and then its documents, each with another one behind it; window i
    has the inputs from i * context on. So every token is predicted once an epoch. What is left at the end, less than a
    window, training leaves out; validation and test fill the window up with targets -100.

    Args: the keys of configs/data/*.yaml, explained there, with `batch_size` made out, and
        seed: of the run. The order of the windows follows from it and the epoch.

    Attributes:
        sizes: windows in train, val and test.
        bytes_per_token: bytes of text over targets in the whole of each, nan where there are none. A mean loss in nats
            per token is loss / ln 2 / bytes_per_token bits per byte, which compares across tokenizers.

    Raises:
        UsageError: a value out of range, or data that are missing or other than the values say. Whether there are
            enough to train on says `check_trainable`.
    """

    noun = "window"

    def __init__(
        self,
        name: str,
        context: int,
        vocab_size: int,
        batch_size: int,
        root: str = "",
        include: Sequence[str] = (),
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        workers: int = 0,
        pin_memory: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, pin_memory, seed)
        require(name in NAMES, f"data.name={name}: choose from {', '.join(NAMES)}")
        require(context >= 1, f"data.context={context}: expected at least 1 token")
        check_fractions(val_fraction, test_fraction)
        if name == "stdlib":
            corpus = stdlib(val_fraction, test_fraction)
        elif name == "text":
            corpus = text(root, include, val_fraction, test_fraction)
        else:
            corpus = shards(root)
        found = f"{root or name} has {corpus.vocab_size}"
        require(vocab_size in (0, corpus.vocab_size), f"data.vocab_size={vocab_size}: {found}, and 0 takes that")
        self.context, self.vocab_size, self.corpus = context, corpus.vocab_size, corpus

    @property
    def found(self) -> dict[str, Any]:
        """What looking at the data told of the keys of its section in the config."""
        return {"vocab_size": self.vocab_size}

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(self.dataset(split)) for split in self.corpus.splits}

    @property
    def bytes_per_token(self) -> dict[str, float]:
        splits = self.corpus.splits.items()
        return {name: split.bytes / len(split.tokens) if len(split.tokens) else float("nan") for name, split in splits}

    def check_trainable(self, batches: int = 1) -> None:
        tokens = len(self.corpus.splits["train"].tokens)
        require(tokens >= self.context, f"data.context={self.context}: there are only {tokens} tokens to train on")
        super().check_trainable(batches)

    def dataset(self, split: str) -> "WindowSet":
        return WindowSet(self.corpus, split, self.context, padded=split != "train")

    def collate(self, split: str) -> Callable[[Any], Any]:
        return whole_batch


class WindowSet(Dataset[Batch]):
    """Windows of a split. Keys are the sampler's (epoch, index).

    Args:
        padded: the last window may be filled up; otherwise it is left out if it is not full.
    """

    def __init__(self, corpus: Corpus, split: str, context: int, padded: bool) -> None:
        self.split, self.context, self.vocab_size, self.padded = split, context, corpus.vocab_size, padded
        self.documents = len(corpus.splits[split].tokens)  # tokens of them, each of which is a target
        self.stream = Stream([np.array([corpus.eot]), *corpus.splits[split].tokens.pieces])

    def __len__(self) -> int:
        return (self.documents + (self.context - 1 if self.padded else 0)) // self.context

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        inputs, targets = self.__getitems__([key])
        return inputs[0], targets[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """A whole batch at once, which is several times quicker than to stack samples."""
        windows = np.zeros((len(keys), self.context + 1), np.int64)
        ends = []
        for window, (_, index) in zip(windows, keys, strict=True):
            start = index * self.context
            ends.append(min(self.context, self.documents - start))
            self.stream.read(start, window[: ends[-1] + 1])
        largest, size = windows.max(), self.vocab_size
        require(largest < size, f"data: {self.split} has the token {largest}, beyond the vocabulary of {size}")
        inputs, targets = torch.from_numpy(windows[:, :-1].copy()), torch.from_numpy(windows[:, 1:].copy())
        if min(ends) < self.context:
            for row, end in enumerate(ends):
                targets[row, end:] = IGNORED
        return inputs, targets


def whole_batch(batch: Batch) -> Batch:
    """The dataset has made it already."""
    return batch
