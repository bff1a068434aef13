"""Text to tokens and back, by the `tokenizers` library: bytes, or a tokenizer.json."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from .tokens_sources import read_meta

END_OF_TEXT = "<|endoftext|>"
ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "<|endoftext>", "</s>", "<eos>", "[EOS]", "[SEP]")
PIECE = 2**20  # characters that are encoded at a time: a tokenizer needs about a hundred times the memory


class Codec:
    """Text as tokens 0 to vocab_size - 1, of which `eot` ends a document.

    A tokenizer.json is used without truncation, padding and added tokens, whatever it says.

    Args:
        path: a tokenizer.json; None: tokens 0 to 255 are the bytes of UTF-8, and 256 ends a document.
        eot: the token that ends a document, as text; "" finds one by the usual names.

    Attributes:
        tokenizer: of the library.
        dtype: the smallest unsigned integers that hold a token.

    Raises:
        ValueError: no such file, not a tokenizer, or no such token.
    """

    def __init__(self, path: Path | None = None, eot: str = "") -> None:
        try:
            self.tokenizer = byte_tokenizer() if path is None else Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no other class
            raise ValueError(f"{path} is no tokenizer.json: {' '.join(str(error).split())}") from error
        vocabulary = self.tokenizer.get_vocab()
        names = [name for name in ([eot] if eot else ENDS_OF_TEXT) if name in vocabulary]
        if not names:
            wanted = eot or f"of the names {', '.join(ENDS_OF_TEXT)}"
            raise ValueError(f"{path} has no token {wanted}; eot= names the one that ends a document")
        self.path, self.name = path, eot
        self.eot, self.vocab_size = vocabulary[names[0]], max(vocabulary.values()) + 1
        self.dtype = "uint16" if self.vocab_size <= 2**16 else "uint32"
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.post_processor = None  # what is exported adds none either
        self.tokenizer.encode_special_tokens = True  # a text that speaks of <|endoftext|> does not end there

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a text, without `eot`."""
        return [token for piece in pieces(text) for token in self.tokenizer.encode(piece, add_special_tokens=False).ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of tokens, without `eot`."""
        return self.tokenizer.decode([token for token in ids if token != self.eot], skip_special_tokens=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Codec, (self.path, self.name)  # the library's own pickle loses settings


def byte_tokenizer() -> Tokenizer:
    """Returns a byte-level BPE without merges, whose tokens are the bytes, with one more that ends a document."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # printable bytes as themselves, then characters for others
    others = iter(one for one in alphabet if ord(one) > 255)
    tokenizer = Tokenizer(models.BPE({chr(b) if chr(b) in alphabet else next(others): b for b in range(256)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def pieces(text: str) -> Iterator[str]:
    """Yields a text, a long one in pieces that end where lines end: hardly any tokenizer looks across."""
    start = 0
    while len(text) - start > PIECE:
        end = text.rfind("\n", start, start + PIECE) + 1 or start + PIECE
        yield text[start:end]
        start = end
    yield text[start:]


def codec_of(settings: Mapping[str, Any]) -> Codec:
    """Returns the codec of a config's section `data`.

    Raises:
        ValueError: the shards or their tokenizer are missing.
    """
    if settings["name"] != "tokens":
        return Codec()
    tokenizer = read_meta(settings["root"])["tokenizer"]
    if tokenizer["file"] is None:
        return Codec()
    return Codec(Path(settings["root"]).expanduser() / tokenizer["file"], tokenizer["eot"])
