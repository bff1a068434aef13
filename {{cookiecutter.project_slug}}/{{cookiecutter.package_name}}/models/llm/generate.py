"""Text from a language model, token by token."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UsageError, require
from ...utils import evaluating, mix
from .cache import KVCache
from .model import Llama

PREFILL = 512  # tokens of a prompt that are read at a time, since all of their logits are in memory together


def generate(
    net: Llama,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_at: int | None = None,
    first_row: int = 0,
    vocab_size: int | None = None,
    autocast: torch.dtype | None = None,
) -> Iterator[list[int | None]]:
    """Continues B prompts, in eval mode and without gradients.

    All of them advance in step, from the end of the shortest on: where a longer prompt has a token, that one counts.
    What a prompt draws follows from the seed and its row alone, so that its neighbours do not matter. When the cache is
    full, the later half of its tokens is read again from position 0: texts may be longer than the net's context.

    Args:
        prompts: ids, at least one and at most `net.context` each.
        temperature: divides the logits; 0 takes the most probable token.
        top_k: draw among the k most probable tokens; 0: among all.
        top_p: and of these among the fewest most probable ones whose probabilities sum up to it.
        stop_at: the token after which a text goes no further.
        first_row: the number of the first prompt, where these are part of more.
        vocab_size: tokens from here on are padding of the net's vocabulary, and not drawn.
        autocast: the dtype to compute in, if that is not the weights'.

    Yields:
        The next token of each prompt, or None where that is still read, or the text has ended.

    Raises:
        UsageError: a value out of range, at once; logits that are no numbers, as it goes.
    """
    _check(net.context, prompts, max_new_tokens, temperature, top_k, top_p)
    generators = [torch.Generator().manual_seed(mix(seed, first_row + row)) for row in range(len(prompts))]
    how = (temperature, top_k, top_p)
    return _generate(net, prompts, max_new_tokens, how, generators, stop_at, vocab_size, autocast)


@torch.no_grad()
def _generate(
    net: Llama,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    how: tuple[float, int, float],
    generators: list[torch.Generator],
    stop_at: int | None,
    vocab_size: int | None,
    autocast: torch.dtype | None,
) -> Iterator[list[int | None]]:
    device = net.head.weight.device
    lengths = [len(prompt) for prompt in prompts]
    text = torch.zeros(len(prompts), max(lengths) + 1, dtype=torch.int64, device=device)  # (B, T and room for more)
    for row, prompt in zip(text, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    given = torch.tensor(lengths, device=device)
    left = [max_new_tokens] * len(prompts)  # tokens that each may still get
    room = min(net.context, max(lengths) + max_new_tokens)  # all that a row can be
    start, known, cache = 0, min(lengths), KVCache(room)  # the cache holds tokens from `start` on
    with evaluating(net):
        while any(left):
            if known - start > net.context:
                start, cache = known - max(1, net.context // 2), KVCache(room)
            for part in text[:, start + cache.length : known].split(PREFILL, dim=1):
                with torch.autocast(device.type, autocast, enabled=autocast is not None):
                    logits = net(part, cache=cache)[:, -1, :vocab_size]  # (B, V)
            if not logits.isfinite().all():
                raise UsageError("the net's logits are not finite: its training has diverged")
            writes = [known >= length and more > 0 for length, more in zip(lengths, left, strict=True)]
            drawn = draw(logits, *how, _uniform(generators, writes).to(device))  # (B,)
            if known == text.shape[1]:
                text = F.pad(text, (0, known))
            text[:, known] = torch.where(given > known, text[:, known], drawn)
            known += 1
            tokens = [token if write else None for token, write in zip(drawn.tolist(), writes, strict=True)]
            left = [
                0 if token is not None and token == stop_at else more - (token is not None)
                for more, token in zip(left, tokens, strict=True)
            ]
            yield tokens


def draw(logits: Tensor, temperature: float, top_k: int, top_p: float, uniform: Tensor) -> Tensor:
    """A token (B,) for each row of logits (B, V), at the place where `uniform` (B,), from 0 to 1, cuts the sum of the
    probabilities in falling order."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float()
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # 0 at most, however small the temperature
    p, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k:
        p[:, top_k:] = 0
    if top_p < 1:
        p[p.cumsum(-1) - p >= top_p * p.sum(-1, keepdim=True)] = 0  # those before it suffice
    total = p.cumsum(-1)
    place = torch.searchsorted(total, uniform[:, None] * total[:, -1:], right=True)  # (B, 1)
    last = (p > 0).sum(-1, keepdim=True) - 1
    return order.gather(1, place.minimum(last)).squeeze(1)


def _uniform(generators: Sequence[torch.Generator], wanted: Sequence[bool]) -> Tensor:
    """(B,), drawn on the CPU, and so the same on every device; a generator whose turn it is not stays where it is."""
    turns = zip(generators, wanted, strict=True)
    return torch.tensor([torch.rand((), generator=one).item() if turn else 0.0 for one, turn in turns])


def _check(context: int, prompts: Sequence[Sequence[int]], max_new_tokens: int, *how: Any) -> None:
    temperature, top_k, top_p = how
    for length in map(len, prompts):
        require(length >= 1, "prompt: expected at least one token")
        require(length <= context, f"prompt: it has {length} tokens, and the net's context {context}; make it shorter")
    require(max_new_tokens >= 1, f"max_new_tokens={max_new_tokens}: expected a whole number from 1 on")
    require(temperature >= 0, f"temperature={temperature}: expected 0 (the most probable token) or more")
    require(top_k >= 0, f"top_k={top_k}: expected 0 (all tokens) or more")
    require(0 < top_p <= 1, f"top_p={top_p}: expected more than 0, and at most 1")
