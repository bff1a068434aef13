"""Text from a trained model: `python sample.py checkpoint=runs/<run> prompt="def "`."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers.decoders import DecodeStream

from ...config import recompose
from ...data.tokens_text import codec_of
from ..trained import find_device, set_precision, trained_model
from .generate import generate
from .model import Llama, build

OPTIONS = {
    "prompt": ("", r"start of the text; \n is a new line, \t a tab, \\ a backslash; empty: a new document"),
    "n": (1, "texts; they are generated together"),
    "max_new_tokens": (256, "length of a text at most; may be more than the context"),
    "temperature": (0.8, "below 1 prefers probable tokens; 0: always the most probable one"),
    "top_k": (0, "sample among the k most probable tokens; 0: all"),
    "top_p": (0.95, "sample among the fewest most probable tokens whose probabilities sum up to this"),
    "seed": (0, "the same seed gives the same texts"),
    "device": ("auto", "auto | cpu | cuda | cuda:1 | mps"),
}


def sample(checkpoint: Path, config: Mapping[str, Any], prompt: str, n: int, device: str, **sampling: Any) -> None:
    """Prints texts: a single one token by token, several when they are complete.

    Args:
        sampling: arguments of `generate`.

    Raises:
        ValueError: an option out of range, or a prompt that is longer than the context.
    """
    if not 1 <= n <= 10_000:
        raise ValueError(f"n={n}: expected 1 to 10000")
    cfg = recompose(config, [], anew=(), free=())
    codec, place = codec_of(config["data"]), find_device(device)
    model = cast(Llama, trained_model(build, cfg, checkpoint).to(place))
    dtype = set_precision(model, cfg.trainer.precision)
    prompt = re.sub(r"\\([nt\\])", lambda found: {"n": "\n", "t": "\t"}.get(found[1], "\\"), prompt)
    ids = codec.encode(prompt) or [codec.eot]
    start = torch.tensor([ids] * n, device=place)
    with torch.autocast(place.type, dtype, enabled=dtype is not None):
        steps = generate(model, start, stop_at=codec.eot, vocab_size=codec.vocab_size, **sampling)
        if n > 1:
            for number, row in enumerate(torch.stack(list(steps), dim=1).tolist(), 1):
                _print(f"--- {number} of {n} ---\n{codec.decode([*ids, *row])}\n")
            return
        stream, text = DecodeStream(ids), prompt
        for token in map(int, steps):
            _print(text + (stream.step(codec.tokenizer, token) or "" if token != codec.eot else ""))
            text = ""
    _print("\n")


def _print(text: str) -> None:
    """Prints at once; characters that the terminal cannot show, or would obey, become a replacement character."""
    if sys.stdout.isatty():
        text = re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
    encoding = sys.stdout.encoding
    print(text.encode(encoding, "replace").decode(encoding), end="", flush=True)
