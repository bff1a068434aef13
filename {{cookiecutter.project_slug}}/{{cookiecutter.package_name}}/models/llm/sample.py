"""Text from a trained language model; `python sample.py --help` lists the options."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ...config import recompose
from ...data.tokens_text import Codec, codec_of
from ...errors import UsageError, require
from ..build import find_device, set_precision, trained_net
from .generate import generate
from .model import Llama

OPTIONS = {
    "prompt": ("", r"what the text starts with; \n is a new line, \t a tab, \\ a backslash; empty: a new document"),
    "prompts": ("", "a file with a prompt in each line, written like prompt, instead"),
    "n": (1, "texts for each prompt"),
    "max_new_tokens": (256, "of each text, unless its document ends before; they may be more than the context"),
    "temperature": (0.8, "below 1 draws what is probable more often; 0: the most probable token, always"),
    "top_k": (0, "draw among the k most probable tokens; 0: among all"),
    "top_p": (0.95, "and of these among the fewest whose probabilities sum up to this"),
    "seed": (0, "of what is drawn; the same gives the same texts"),
    "device": ("auto", "auto | cpu | cuda | cuda:1 | mps"),
}
BATCH = 32  # texts that are written at once


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
    """Prints texts: one as it comes, more than one when they are whole.

    Raises:
        UsageError: an option out of range, or a prompt that is longer than the context.
    """
    require(n >= 1, f"n={n}: expected a whole number from 1 on")
    cfg = recompose(config, [], anew=(), free=())
    place, codec = find_device(device), codec_of(config["data"])
    net = cast(Llama, trained_net(cfg, checkpoint).to(place))
    how: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    how |= {"stop_at": codec.eot, "vocab_size": codec.vocab_size}
    how["autocast"] = set_precision(net, cfg.trainer.precision)
    texts = [text for text in _prompts(prompt, prompts) for _ in range(n)]
    starts = [codec.encode(text) or [codec.eot] for text in texts]
    batches = [
        generate(net, starts[first : first + BATCH], max_new_tokens, first_row=first, **how)
        for first in range(0, len(starts), BATCH)
    ]  # each checks its prompts at once, and reads them when it is asked for tokens
    if len(texts) == 1:
        _show(texts[0])
        for piece in decoded(codec, starts[0], (step[0] for step in batches[0])):
            _show(piece)
        _show("\n")
        return
    for first, batch in zip(range(0, len(starts), BATCH), batches, strict=True):
        rows = zip(*batch, strict=True)
        for number, row in enumerate(rows, first):
            _show(f"--- {number + 1} of {len(texts)} ---\n{texts[number]}")
            _show("".join(decoded(codec, starts[number], row)) + "\n")


def decoded(codec: Codec, prompt: list[int], tokens: Iterable[int | None]) -> Iterator[str]:
    """The text of `tokens` piece by piece, without the prompt's; None is passed over.

    A piece is what a token adds to the text of those before it, as many as it takes: a tokenizer may write a word
    otherwise at the start of a text, and a character may be several tokens long.
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


def _prompts(prompt: str, file: str) -> list[str]:
    if not file:
        return [_unescaped(prompt)]
    require(not prompt, "prompt= and prompts=: give one of them")
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").split("\n")  # text mode has made line ends \n
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"prompts={file}: expected a text file in UTF-8 ({error})") from error
    require(any(lines), f"prompts={file}: it has no lines")
    return [_unescaped(line) for line in lines if line]


def _unescaped(text: str) -> str:
    return re.sub(r"\\([nt\\])", lambda found: {"n": "\n", "t": "\t"}.get(found[1], "\\"), text)


def _show(text: str) -> None:
    """Prints, at once. What the terminal cannot write, or might take for a command, becomes a replacement character."""
    if sys.stdout.isatty():
        text = re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
    encoding = sys.stdout.encoding
    print(text.encode(encoding, "replace").decode(encoding), end="", flush=True)
