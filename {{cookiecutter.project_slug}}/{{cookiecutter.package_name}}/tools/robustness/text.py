"""Shifts of text: other texts, and replaced tokens. `evaluate.py shift=text` measures a model on them.

The other texts come with every Python, and are not part of data=stdlib: English prose and tables. The strength is the
share of the input tokens that are replaced by others. The targets stay, so that bits per byte compare over strengths.
"""

import sysconfig
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from ... import utils
from ...config.errors import UsageError, require
from ...data.tokens_sources import Corpus, Split, Stream
from ...data.tokens_text import codec_of
from ...utils import mix

if TYPE_CHECKING:  # Lightning's import takes seconds, for which a mistyped name should not wait
    from ...data.tokens import Tokens, WindowSet

NAME, ABOUT = "text", "text of other kinds, and text in which tokens are replaced"
KINDS = ("own", "prose", "tables")  # the split itself; Python's reference in English; its tables of code pages
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)  # replaced tokens, by strength
LENGTH = 2**18  # characters of another text, about as many as there are in data=stdlib to test on


def shifted(data: "Tokens", section: Mapping[str, Any], kind: str, strength: int) -> "Tokens":
    """Returns the data, or another text in all splits; from strength 1 on with replaced tokens in validation and test.

    Args:
        section: `data` of the config.

    Raises:
        UsageError: this Python came without that text, or the tokenizer is missing.
    """
    if kind != "own":
        codec, known = codec_of(section), data.corpus.splits
        texts = "\0".join(prose() if kind == "prose" else tables())[:LENGTH].split("\0")
        ids = np.array([token for text in texts for token in (*codec.encode(text), codec.eot)])
        split = Split(Stream([ids]), sum(len(text.encode()) for text in texts))
        data = data.damaged(None)
        data.corpus = Corpus(dict.fromkeys(known, split), data.vocab_size, codec.eot)
    return data.damaged(partial(ReplacedSet, share=SHARES[strength - 1])) if strength else data


class ReplacedSet(Dataset[tuple[Tensor, Tensor]]):
    """Windows in whose inputs a share of the tokens is replaced.

    A token is replaced by the one at the same position of another window, so that the frequencies of tokens stay. The
    positions follow from the window's index; those of a smaller share are among those of a larger one.
    """

    def __init__(self, windows: "WindowSet", share: float) -> None:
        self.windows, self.share = windows, share

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        inputs, targets = self.windows[key]
        random = Generator().manual_seed(mix(index))
        full = max(1, len(self.windows) - 1)  # the last window may be filled up
        other, _ = self.windows[epoch, int(torch.randint(full, (), generator=random))]
        return torch.where(torch.rand(len(inputs), generator=random) < self.share, other, inputs), targets


def prose() -> list[str]:
    """Returns the texts of Python's `help()` about the language, in English."""
    try:
        return [text for _, text in sorted(import_module("pydoc_data.topics").topics.items())]
    except ImportError as error:
        raise UsageError("shift=text: this Python came without pydoc_data, the English text") from error


def tables() -> list[str]:
    """Returns the tables with which Python decodes bytes: numbers, and names of characters."""
    root = Path(sysconfig.get_path("stdlib"), "encodings")
    found = sorted(root.glob("cp*.py"))
    require(bool(found), f"shift=text: {root} holds no sources, which are the tables; take a Python that has them")
    return [path.read_bytes().replace(b"\r\n", b"\n").decode() for path in found]


def write_samples(data: "Tokens", section: Mapping[str, Any], split: str, stem: Path) -> Path:
    """Writes the beginning of a window of every kind and strength to `stem`.txt, and returns its path."""
    codec, lines = codec_of(section), []
    for kind in KINDS:
        windows = shifted(data, section, kind, 0).dataset(split)
        for strength, share in enumerate((0.0, *SHARES)):
            inputs, _ = ReplacedSet(windows, share)[0, len(windows) // 2]
            lines.append(f"{kind:<7} {strength}  {codec.decode(inputs.tolist())[:100]!a}")
    path = stem.with_suffix(".txt")
    utils.write_text(path, "\n".join(lines) + "\n")
    return path
