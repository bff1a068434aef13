"""Text to tokens and back: bytes, or what a tokenizer.json of the `tokenizers` library says."""

import codecs
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UsageError, require
from .tokens_shards import read_meta
from .tokens_sources import EOT, VOCAB_SIZE

END_OF_TEXT = "<|endoftext|>"
ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "<|endoftext>", "</s>", "<eos>", "[EOS]", "[SEP]")


class Codec(Protocol):
    """Tokens 0 to vocab_size - 1; `eot` ends a document."""

    eot: int
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without `eot`; nothing in it is taken for a special token."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The same for many, quicker."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens, `eot` left out. A character at the end of which bytes are missing waits for them.

        So what is decoded of the first tokens is where what is decoded of more of them begins: to stream text, print
        what is new.
        """


class Bytes:
    eot, vocab_size = EOT, VOCAB_SIZE

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "surrogateescape"))  # bytes of a command line that are no UTF-8 come so

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        content = bytes(int(token) for token in ids if token != EOT)
        return codecs.getincrementaldecoder("utf-8")("replace").decode(content)


class Tokenizer:
    """A tokenizer.json, read for whole texts: it neither cuts nor pads them nor adds tokens, whatever it was set to.

    Args:
        eot: the token that ends a document, as text; "" finds one by the usual names.

    Raises:
        UsageError: no such file, not a tokenizer, or no such token.
    """

    def __init__(self, path: Path, eot: str = "") -> None:
        from tokenizers import Tokenizer as Library

        require(path.is_file(), f"{path} does not exist: expected a tokenizer.json")
        try:
            self.library = Library.from_file(str(path))
        except Exception as error:  # the library raises no other class
            raise UsageError(f"{path} is no tokenizer.json: {' '.join(str(error).split())}") from error
        vocabulary = self.library.get_vocab()
        names = [name for name in ([eot] if eot else ENDS_OF_TEXT) if name in vocabulary]
        problem = f"eot={eot}: {path} has no such token" if eot else f"{path} has no end-of-text token of a usual name"
        require(bool(names), f"{problem}; eot=TOKEN names the one that ends a document")
        self.eot, self.vocab_size = vocabulary[names[0]], max(vocabulary.values()) + 1
        self.library.no_truncation()
        self.library.no_padding()
        self.library.post_processor = None  # what is exported adds none either
        self.library.encode_special_tokens = True  # a text that speaks of <|endoftext|> does not end there

    def encode(self, text: str) -> list[int]:
        return self.library.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(found.ids) for found in self.library.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        kept = [int(token) for token in ids if token != self.eot]
        return self.library.decode(kept, skip_special_tokens=False).rstrip("\N{REPLACEMENT CHARACTER}")


def train_tokenizer(texts: Iterable[str], vocab_size: int, eot: str) -> Any:
    """A byte-level BPE of the `tokenizers` library: of any text, without loss, in at most `vocab_size` tokens."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[eot],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    return library


def codec_of(settings: Mapping[str, Any]) -> Codec:
    """The codec of a config's section `data`.

    Raises:
        UsageError: the shards, or the tokenizer beside them, are not there or have changed.
    """
    if settings["name"] != "tokens":
        return Bytes()
    meta = read_meta(settings["root"])
    if meta["tokenizer"]["file"] is None:
        return Bytes()
    path = Path(settings["root"]).expanduser() / meta["tokenizer"]["file"]
    codec = Tokenizer(path, meta["tokenizer"]["eot"])
    same = checksum(path) == meta["tokenizer"]["sha256"]
    require(same, f"{path} is not the tokenizer that made the data; delete the folder and prepare the data again")
    return codec


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
