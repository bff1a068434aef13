"""Sampling of text, token by token."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .model import KVCache, Llama

PREFILL = 512  # tokens of a prompt per forward pass, since all of their logits are in memory together


@torch.no_grad()
def generate(
    model: Llama,
    tokens: Tensor,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_at: int | None = None,
    vocab_size: int | None = None,
) -> Iterator[Tensor]:
    """Continues B prompts of the same length.

    When the cache is full, the later half of its tokens is read again from position 0, so that texts may be longer than
    the context.

    Args:
        model: in eval mode.
        tokens: (B, T) ids, 1 <= T <= `model.context`.
        temperature: divides the logits; 0 takes the most probable token.
        top_k: samples among the k most probable tokens; 0 for all.
        top_p: samples among the fewest most probable tokens whose probabilities sum up to this.
        stop_at: the token that ends a text; what follows it is the same token.
        vocab_size: number of tokens; ids from there on are padding and never sampled.

    Yields:
        The next token of each prompt (B,), until all texts have ended.

    Raises:
        ValueError: an argument out of range, or logits that are not finite.
    """
    if not 1 <= tokens.shape[1] <= model.context:
        raise ValueError(f"the prompt has {tokens.shape[1]} tokens; expected 1 to {model.context}, the context")
    if max_new_tokens < 1 or temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError("expected max_new_tokens >= 1, temperature >= 0, top_k >= 0 and 0 < top_p <= 1")
    generator = torch.Generator().manual_seed(seed)
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    start, cache = 0, KVCache()  # the cache holds the tokens from `start` on
    for _ in range(max_new_tokens):
        if tokens.shape[1] - start > model.context:
            start, cache = tokens.shape[1] - max(1, model.context // 2), KVCache()
        for part in tokens[:, start + cache.length :].split(PREFILL, dim=1):
            logits = model(part, cache=cache)[:, -1, :vocab_size]  # (B, V)
        if not logits.isfinite().all():
            raise ValueError("the logits are not finite: the training of this model has diverged")
        new = sample_token(logits, temperature, top_k, top_p, generator)
        if stop_at is not None:
            new = new.masked_fill(ended, stop_at)
            ended |= new == stop_at
        tokens = torch.cat((tokens, new[:, None]), dim=1)
        yield new
        if ended.all():
            return


def sample_token(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> Tensor:
    """Returns a token (B,) for each row of logits (B, V)."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = (logits.float() - logits.amax(-1, keepdim=True)) / temperature  # at most 0, however small the temperature
    p, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k:
        p[:, top_k:] = 0
    if top_p < 1:
        p[p.cumsum(-1) - p >= top_p * p.sum(-1, keepdim=True)] = 0  # the tokens before it suffice
    # on the CPU, so that every device samples the same
    drawn = torch.multinomial(p.cpu(), 1, generator=generator)
    return order.gather(1, drawn.to(order.device)).squeeze(1)
