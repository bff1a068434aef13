"""Text from a trained model: `python sample.py checkpoint=runs/<run> prompt="def "`."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ...config import recompose
from ...config.errors import UsageError, require
from ...data.tokens_text import Codec, codec_of
from ..build import find_device, set_precision, trained_model
from .generate import generate
from .model import Llama

OPTIONS = {
    "prompt": ("", r"start of the text; \n is a new line, \t a tab, \\ a backslash; empty: a new document"),
    "prompts": ("", "a file with one prompt per line, written like prompt, instead"),
    "n": (1, "texts per prompt"),
    "max_new_tokens": (256, "length of a text at most; may be more than the context"),
    "temperature": (0.8, "below 1 prefers probable tokens; 0: always the most probable one"),
    "top_k": (0, "sample among the k most probable tokens; 0: all"),
    "top_p": (0.95, "sample among the fewest most probable tokens whose probabilities sum up to this"),
    "seed": (0, "the same seed gives the same texts"),
    "device": ("auto", "auto | cpu | cuda | cuda:1 | mps"),
}
BATCH = 32  # texts that are generated together


def sample(
    checkpoint: Path,
    config: Mapping[str, Any],
    prompt: str,
    prompts: str,
    n: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    device: str,
) -> None:
    """Prints texts: a single one token by token, several when they are complete.

    Raises:
        ValueError: an option out of range, or a prompt that is longer than the context.
    """
    require(n >= 1, f"n={n}: expected at least 1")
    cfg = recompose(config, [], anew=(), free=())
    codec, place = codec_of(config["data"]), find_device(device)
    model = cast(Llama, trained_model(cfg, checkpoint).to(place))
    autocast = set_precision(model, cfg.trainer.precision)
    texts = [text for text in _read_prompts(prompt, prompts) for _ in range(n)]
    starts = [codec.encode(text) or [codec.eot] for text in texts]
    longest = max(map(len, starts))
    require(longest <= model.context, f"prompt: it has {longest} tokens; expected at most {model.context}, the context")
    for first in range(0, len(starts), BATCH):
        tokens = generate(
            model,
            starts[first : first + BATCH],
            max_new_tokens,
            temperature,
            top_k,
            top_p,
            seed,
            stop_at=codec.eot,
            first_row=first,
            vocab_size=codec.vocab_size,
            autocast=autocast,
        )
        if len(texts) == 1:
            _print(texts[0])
            for piece in decode_stream(codec, starts[0], (step[0] for step in tokens)):
                _print(piece)
            _print("\n")
            return
        for number, row in enumerate(zip(*tokens, strict=True), first):
            text = "".join(decode_stream(codec, starts[number], row))
            _print(f"--- {number + 1} of {len(texts)} ---\n{texts[number]}{text}\n")


def decode_stream(codec: Codec, prompt: list[int], tokens: Iterable[int | None]) -> Iterator[str]:
    """Yields the text that each token adds to the prompt and the tokens before it; None adds nothing.

    Tokens are decoded together with some before them, because a tokenizer may write a word otherwise at the start of a
    text, and a character may take several tokens.
    """
    ids = prompt[-16:]
    shown = codec.decode(ids)
    for token in tokens:
        if token is None:
            continue
        ids.append(token)
        text = codec.decode(ids)
        yield text[len(shown) :]
        shown = text
        if len(ids) > 128:
            ids = ids[-16:]
            shown = codec.decode(ids)


def _read_prompts(prompt: str, file: str) -> list[str]:
    if not file:
        return [_unescape(prompt)]
    require(not prompt, "prompt and prompts: expected one of them")
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"prompts={file}: expected a text file in UTF-8 ({error})") from error
    require(any(lines), f"prompts={file}: expected at least one line")
    return [_unescape(line) for line in lines if line]


def _unescape(text: str) -> str:
    return re.sub(r"\\([nt\\])", lambda found: {"n": "\n", "t": "\t"}.get(found[1], "\\"), text)


def _print(text: str) -> None:
    """Prints at once; characters that the terminal cannot show, or would obey, become a replacement character."""
    if sys.stdout.isatty():
        text = re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
    encoding = sys.stdout.encoding
    print(text.encode(encoding, "replace").decode(encoding), end="", flush=True)
