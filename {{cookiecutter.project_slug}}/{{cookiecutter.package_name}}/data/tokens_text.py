"""Text to tokens and back: bytes, or a tokenizer.json of the `tokenizers` library."""

import codecs
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..config.errors import UsageError, require
from .prepared import AGAIN
from .tokens_sources import EOT, VOCAB_SIZE
from .tokens_stream import read_meta

END_OF_TEXT = "<|endoftext|>"
ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "<|endoftext>", "</s>", "<eos>", "[EOS]", "[SEP]")


class Codec(Protocol):
    """A text encoding with the tokens 0 to vocab_size - 1, of which `eot` ends a document."""

    eot: int
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a text, without `eot`; nothing in it is taken for a special token."""

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of tokens, without `eot` and without an incomplete character at the end.

        So the text of the first tokens is a prefix of the text of more of them: to stream, print what is new.
        """


class Bytes:
    """The codec of UTF-8 bytes."""

    eot, vocab_size = EOT, VOCAB_SIZE

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "surrogateescape"))  # bytes of a command line that are no UTF-8 come so

    def decode(self, ids: Iterable[int]) -> str:
        content = bytes(int(token) for token in ids if token != EOT)
        return codecs.getincrementaldecoder("utf-8")("replace").decode(content)


class Tokenizer:
    """The codec of a tokenizer.json, without truncation, padding and added tokens, whatever the file says.

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
        problem = f"{path} has no token {eot}" if eot else f"{path} has no end-of-text token of a usual name"
        require(bool(names), f"{problem}; eot=TOKEN names the one that ends a document")
        self.path, self.name = path, eot
        self.eot, self.vocab_size = vocabulary[names[0]], max(vocabulary.values()) + 1
        self.library.no_truncation()
        self.library.no_padding()
        self.library.post_processor = None  # what is exported adds none either
        self.library.encode_special_tokens = True  # a text that speaks of <|endoftext|> does not end there

    def encode(self, text: str) -> list[int]:
        return self.library.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        kept = [int(token) for token in ids if token != self.eot]
        return self.library.decode(kept, skip_special_tokens=False).rstrip("\N{REPLACEMENT CHARACTER}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self.path, self.name)  # the library's own pickle loses settings


def train_tokenizer(texts: Iterable[str], vocab_size: int, eot: str) -> Any:
    """Returns a byte-level BPE of the `tokenizers` library, with at most `vocab_size` tokens."""
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
    """Returns the codec of a config's section `data`.

    Raises:
        UsageError: the shards or their tokenizer are missing or have changed.
    """
    if settings["name"] != "tokens":
        return Bytes()
    tokenizer = read_meta(settings["root"])["tokenizer"]
    if tokenizer["file"] is None:
        return Bytes()
    path = Path(settings["root"]).expanduser() / tokenizer["file"]
    codec = Tokenizer(path, tokenizer["eot"])
    require(checksum(path) == tokenizer["sha256"], f"{path} is not the tokenizer that made the data; {AGAIN}")
    return codec


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
