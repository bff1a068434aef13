"""Windows of tokens: the data module of every file in configs/data/ that says `module: tokens`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .base import DataModule
from .tokens_sources import Corpus, Stream, read_shards, stdlib, text

IGNORED = -100  # the target of a position beyond the end; PyTorch's losses leave it out

Window = tuple[Tensor, Tensor]


class Tokens(DataModule):
    """Batches of inputs (B, context) and targets (B, context), int64: each target is the token after its input.

    A split is one long sequence, an end-of-text token and then its documents, each with another one behind it; window i
    has the inputs from i * context on. So every token is predicted once an epoch. What is left at the end, less than a
    window, training leaves out; validation and test fill the window up with targets -100.

    Args: the keys of configs/data/*.yaml, explained there, with `batch_size` resolved, and
        seed: of the run. The order of the windows follows from it.

    Attributes:
        sizes: windows in train, val and test.
        bytes_per_token: bytes of text per target of each split, nan where there are none. A mean loss in nats per token
            is loss / ln 2 / bytes_per_token bits per byte, which compares across tokenizers.

    Raises:
        ValueError: data that are missing or differ from the arguments.
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
        encoding: str = "utf-8",
        on_error: str = "stop",
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        workers: int = 0,
        pin_memory: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, pin_memory, seed)
        if name == "tokens":
            self.corpus = read_shards(root)
        elif name == "text":
            self.corpus = text(root, include, encoding, on_error == "skip", val_fraction, test_fraction)
        else:
            self.corpus = stdlib(val_fraction, test_fraction)
        self.context, self.vocab_size = context, self.corpus.vocab_size
        if vocab_size not in (0, self.vocab_size):
            raise ValueError(f"vocab_size={vocab_size}: the data have {self.vocab_size}, and 0 takes that")

    @property
    def found(self) -> dict[str, Any]:
        """Keys of section `data` that the data themselves decide."""
        return {"vocab_size": self.vocab_size}

    @property
    def notes(self) -> list[str]:
        return [f"skipped: {one}" for one in self.corpus.skipped]

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(self.dataset(split)) for split in self.corpus.splits}

    @property
    def bytes_per_token(self) -> dict[str, float]:
        splits = self.corpus.splits.items()
        return {name: split.bytes / len(split.tokens) if len(split.tokens) else float("nan") for name, split in splits}

    def check_trainable(self, step_size: int) -> None:
        tokens = len(self.corpus.splits["train"].tokens)
        if tokens < self.context:
            raise ValueError(f"context={self.context}: there are only {tokens} tokens to train on")
        super().check_trainable(step_size)

    def dataset(self, split: str) -> "WindowSet":
        return WindowSet(self.corpus, split, self.context, padded=split != "train")


class WindowSet(Dataset[Window]):
    """The windows of a split, by (epoch, index).

    Args:
        padded: the last window may be filled up; otherwise it is left out if it is not full.
    """

    def __init__(self, corpus: Corpus, split: str, context: int, padded: bool) -> None:
        self.context, self.padded = context, padded
        self.targets = len(corpus.splits[split].tokens)
        self.stream = Stream([np.array([corpus.eot]), *corpus.splits[split].tokens.pieces])

    def __len__(self) -> int:
        return (self.targets + (self.context - 1 if self.padded else 0)) // self.context

    def __getitem__(self, key: tuple[int, int]) -> Window:
        start = key[1] * self.context
        end = min(self.context, self.targets - start)
        tokens = np.zeros(self.context + 1, np.int64)
        self.stream.read(start, tokens[: end + 1])
        inputs, targets = torch.from_numpy(tokens[:-1]), torch.from_numpy(tokens[1:].copy())
        targets[end:] = IGNORED
        return inputs, targets
