"""Sampling of text, token by token."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...utils import evaluating, mix
from .model import KVCache, Llama

PREFILL = 512  # tokens of a prompt per forward pass, since all of their logits are in memory together


@torch.no_grad()
def generate(
    model: Llama,
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
    """Continues B prompts in eval mode.

    All rows advance in step from the end of the shortest prompt; where a longer prompt has a token, that one is taken.
    A row's random numbers depend on the seed and its own number, not on other rows. When the cache is full, the later
    half of its tokens is read again from position 0, so that texts may be longer than the context.

    Args:
        prompts: ids, from one to `model.context` each.
        temperature: divides the logits; 0 takes the most probable token.
        top_k: samples among the k most probable tokens; 0 for all.
        top_p: samples among the fewest most probable tokens whose probabilities sum up to this.
        stop_at: the token that ends a text.
        first_row: number of the first prompt, where these are part of more.
        vocab_size: number of tokens; ids from there on are padding and never sampled.
        autocast: dtype of matrix products, if not that of the weights.

    Yields:
        The next token of each prompt; None where the prompt is still being read or the text has ended.

    Raises:
        ValueError: an argument out of range, or logits that are not finite.
    """
    lengths = [len(prompt) for prompt in prompts]
    if min(lengths) < 1 or max(lengths) > model.context:
        raise ValueError(
            f"prompts of {min(lengths)} to {max(lengths)} tokens; expected 1 to {model.context}, the context"
        )
    if max_new_tokens < 1 or temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError("expected max_new_tokens >= 1, temperature >= 0, top_k >= 0 and 0 < top_p <= 1")
    device = model.lm_head.weight.device
    generators = [torch.Generator().manual_seed(mix(seed, first_row + row)) for row in range(len(prompts))]
    text = torch.zeros(len(prompts), max(lengths) + 1, dtype=torch.int64, device=device)  # (B, T); grows when full
    for row, prompt in zip(text, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    given = torch.tensor(lengths, device=device)
    left = [max_new_tokens] * len(prompts)
    room = min(model.context, max(lengths) + max_new_tokens)
    start, known, cache = 0, min(lengths), KVCache(room)  # the cache holds the tokens from `start` on
    with evaluating(model):
        while any(left):
            if known - start > model.context:
                start, cache = known - max(1, model.context // 2), KVCache(room)
            for part in text[:, start + cache.length : known].split(PREFILL, dim=1):
                with torch.autocast(device.type, autocast, enabled=autocast is not None):
                    logits = model(part, cache=cache)[:, -1, :vocab_size]  # (B, V)
            if not logits.isfinite().all():
                raise ValueError("the logits are not finite: the training of this model has diverged")
            writes = [known >= length and more > 0 for length, more in zip(lengths, left, strict=True)]
            # on the CPU, so that every device samples the same; a row that does not write draws no number
            draws = [
                torch.rand((), generator=one).item() if turn else 0.0
                for one, turn in zip(generators, writes, strict=True)
            ]
            sampled = sample_token(logits, temperature, top_k, top_p, torch.tensor(draws).to(device))  # (B,)
            if known == text.shape[1]:
                text = F.pad(text, (0, known))
            text[:, known] = torch.where(given > known, text[:, known], sampled)
            known += 1
            tokens = [token if write else None for token, write in zip(sampled.tolist(), writes, strict=True)]
            left = [
                0 if token is not None and token == stop_at else more - (token is not None)
                for more, token in zip(left, tokens, strict=True)
            ]
            yield tokens


def sample_token(logits: Tensor, temperature: float, top_k: int, top_p: float, uniform: Tensor) -> Tensor:
    """Returns a token (B,) for each row of logits (B, V), by inversion of the cumulated probabilities.

    Args:
        uniform: (B,), from 0 to 1, the place in the cumulated probabilities in falling order.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float()
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # at most 0, however small the temperature
    p, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k:
        p[:, top_k:] = 0
    if top_p < 1:
        p[p.cumsum(-1) - p >= top_p * p.sum(-1, keepdim=True)] = 0  # the tokens before it suffice
    total = p.cumsum(-1)
    place = torch.searchsorted(total, uniform[:, None] * total[:, -1:], right=True)  # (B, 1)
    last = (p > 0).sum(-1, keepdim=True) - 1
    return order.gather(1, place.minimum(last)).squeeze(1)
