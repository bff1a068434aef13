"""Text of other kinds, and damaged text, which `evaluate.py shift=text` measures a net on.

The other texts come with every Python, and are what data=stdlib leaves out: English prose and tables. The strength is
the share of the tokens that a net reads which are replaced by others, as in text that was badly scanned or typed. What
it has to predict stays the text as it was written, so that bits per byte compare over the strengths.
"""

import sysconfig
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from ... import utils
from ...data.tokens_sources import read
from ...data.tokens_stream import Corpus, Split, Stream
from ...data.tokens_text import codec_of
from ...errors import UsageError, require
from ...utils import mix

if TYPE_CHECKING:  # Lightning's import takes seconds, for which a mistyped name should not wait
    from ...data.tokens import Tokens, WindowSet

NAME, ABOUT = "text", "text of other kinds, and text in which tokens are replaced"
KINDS = ("own", "prose", "tables")  # the split itself; Python's reference in English; its tables of code pages
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)  # of the tokens that are read, by strength
LENGTH = 2**18  # characters of another text, about as many as there are in data=stdlib to test on


def origin(data: "Tokens", section: Mapping[str, Any], kind: str) -> "Tokens":
    """What `kind` starts from, at strength 0: the data, or the same tokens of another text in all splits.

    Args:
        section: `data` of the config.

    Raises:
        UsageError: this Python came without that text, or the tokenizer is not beside the data.
    """
    if kind == "own":
        return data
    texts, codec = shortened(prose() if kind == "prose" else tables()), codec_of(section)
    end = np.array([codec.eot])
    ids = np.concatenate([part for one in codec.encode_batch(texts) for part in (one, end)])
    split = Split(Stream([ids]), sum(len(text.encode()) for text in texts))
    other = data.damaged(None)
    other.corpus = Corpus(dict.fromkeys(data.corpus.splits, split), data.vocab_size, codec.eot)
    return other


def damaged(data: "Tokens", section: Mapping[str, Any], kind: str, strength: int) -> "Tokens":
    """The data in which a net reads replaced tokens in validation and test, `strength` from 1 to 5."""
    return data.damaged(partial(ReplacedSet, share=SHARES[strength - 1]))


class ReplacedSet(Dataset[tuple[Tensor, Tensor]]):
    """Windows in whose inputs a share of the tokens is replaced; targets stay as they were.

    Another token is what stands at the same place of another window: one as frequent there as in the text. Which are
    replaced follows from the window's index, and those of a smaller share are among those of a larger one.
    """

    def __init__(self, windows: "WindowSet", share: float) -> None:
        self.windows, self.share = windows, share

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        inputs, targets = self.__getitems__([key])
        return inputs[0], targets[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        inputs, targets = self.windows.__getitems__(keys)
        whole = max(1, len(self.windows) - 1)  # the last window may be filled up
        others, hits = [], []
        for epoch, index in keys:
            random = Generator().manual_seed(mix(index))
            others.append((epoch, int(torch.randint(whole, (), generator=random))))
            hits.append(torch.rand(inputs.shape[1], generator=random) < self.share)
        return torch.where(torch.stack(hits), self.windows.__getitems__(others)[0], inputs), targets


def prose() -> list[str]:
    """What `help()` of Python says about the language: its reference, in English."""
    try:
        topics = import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise UsageError("shift=text: this Python came without pydoc_data, the English text") from error
    return [text for _, text in sorted(topics.items())]


def tables() -> list[str]:
    """The tables by which Python decodes bytes: numbers, and names of characters."""
    root = Path(sysconfig.get_path("stdlib"), "encodings")
    found = sorted(root.glob("cp*.py"))
    require(bool(found), f"shift=text: {root} holds no sources, which are the tables; take a Python that has them")
    return [read(path).replace(b"\r\n", b"\n").decode() for path in found]


def shortened(texts: Sequence[str]) -> list[str]:
    """The first texts, of `LENGTH` characters together; the last is cut off there."""
    left, kept = LENGTH, []
    for text in texts:
        if left > 0:
            kept.append(text[:left])
            left -= len(text)
    return kept


def write_samples(data: "Tokens", section: Mapping[str, Any], split: str, stem: Path) -> Path:
    """Writes what a net reads of every kind and strength, a window's beginning: `stem`.txt, whose path is returned."""
    codec, lines = codec_of(section), []
    for kind in KINDS:
        start = origin(data, section, kind)
        windows = start.dataset(split)
        for strength in range(6):
            one = ReplacedSet(windows, SHARES[strength - 1]) if strength else windows
            text = codec.decode(one[0, len(windows) // 2][0].tolist())
            lines.append(f"{kind:<7} {strength}  {text[:100]!a}")
    path = stem.with_suffix(".txt")
    utils.write_text(path, "\n".join(lines) + "\n")
    return path
