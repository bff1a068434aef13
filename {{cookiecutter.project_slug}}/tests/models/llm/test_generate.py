"""Generation: the cache, what is sampled, and texts beyond the context."""

from typing import Any

import pytest
import torch

from {{cookiecutter.package_name}}.models.llm.generate import generate, sample_token
from {{cookiecutter.package_name}}.models.llm.model import KVCache, Llama

from ...norms.common import CAUSAL
from .models import make, shake, some_tokens


def new_tokens(model: Llama, tokens: list[list[int]], max_new_tokens: int, **options: Any) -> list[list[int]]:
    steps = list(generate(model.eval(), torch.tensor(tokens), max_new_tokens, **options))
    return torch.stack(steps, dim=1).tolist()


@pytest.mark.parametrize("norm", CAUSAL)
@pytest.mark.parametrize("parts", [[1] * 12, [12], [5, 1, 4, 2], [1, 11]])
@torch.no_grad()
def test_cached_logits_are_those_of_the_whole(norm: str, parts: list[int]) -> None:
    """In float64: attention is so sharp under dyisru, which is bounded by sqrt(dim), that fp32's rounding shows."""
    model = make(norm, qk_norm="same", embed_scale=True).eval().double()
    shake(model)
    tokens, cache = some_tokens(), KVCache()
    cached = [model(part, cache=cache) for part in tokens.split(parts, dim=1)]
    torch.testing.assert_close(torch.cat(cached, dim=1), model(tokens), rtol=1e-5, atol=1e-5)
    assert cache.length == 12
    with pytest.raises(ValueError, match="13 tokens"):
        model(tokens[:, :1], cache=cache)


@pytest.mark.parametrize("norm", ["rmsnorm", "dyt", "bn"])
def test_greedy_is_the_most_probable_token_also_beyond_the_context(norm: str) -> None:
    """Where a window of 12 is full, its later half is read again."""
    model = make(norm).eval()
    prompts = [[3, 1, 4], [9, 2, 6]]
    for prompt, got in zip(prompts, new_tokens(model, prompts, 40, temperature=0.0), strict=True):
        text, start = list(prompt), 0
        for _ in range(40):
            if len(text) - start > 12:
                start = len(text) - 6
            text.append(int(model(torch.tensor([text[start:]]))[0, -1].argmax()))
        assert got == text[3:]


def test_padding_of_the_vocabulary_is_not_sampled() -> None:
    model = make()
    with torch.no_grad():
        model.lm_head.weight[:47] *= 1e-3  # so that the rest are tempting
    assert max(max(new_tokens(model, [[1, 2]], 30))) >= 47
    assert max(max(new_tokens(model, [[1, 2]], 30, vocab_size=47))) < 47


def test_a_text_ends_where_it_says_and_the_seed_counts() -> None:
    model = make()
    free = new_tokens(model, [[1, 2]] * 3, 30, seed=2)
    assert new_tokens(model, [[1, 2]] * 3, 30, seed=2) == free != new_tokens(model, [[1, 2]] * 3, 30, seed=3)
    stop = free[0][9]
    for whole, cut in zip(free, new_tokens(model, [[1, 2]] * 3, 30, seed=2, stop_at=stop), strict=True):
        length = whole.index(stop) + 1 if stop in whole else len(cut)
        assert cut == whole[:length] + [stop] * (len(cut) - length)
    ((first,),) = new_tokens(model, [[1, 2]], 1, temperature=0.0)
    assert new_tokens(model, [[1, 2]], 30, temperature=0.0, stop_at=first) == [[first]]


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    # probabilities 0.1, 0.4, 0.2, 0.25, 0.05
    [
        (0, 1.0, [0, 1, 2, 3, 4]),
        (1, 1.0, [1]),
        (3, 1.0, [1, 2, 3]),
        (9, 1.0, [0, 1, 2, 3, 4]),
        (0, 0.39, [1]),
        (0, 0.41, [1, 3]),
        (0, 0.64, [1, 3]),
        (0, 0.66, [1, 2, 3]),
        (2, 0.5, [1]),  # of 0.4 and 0.25 alone, 0.4 is more than half
        (2, 0.7, [1, 3]),
    ],
)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1e-30])
def test_tokens_are_sampled_as_often_as_probable(top_k: int, top_p: float, kept: list[int], temperature: float) -> None:
    p = torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05])
    logits = temperature * p.log()
    if temperature == 1e-30:
        logits, kept, p = p.log(), [1], torch.ones(5)
    drawn = sample_token(logits.expand(40_000, -1), temperature, top_k, top_p, torch.Generator().manual_seed(0))
    shares = drawn.bincount(minlength=5) / len(drawn)
    assert shares.nonzero().flatten().tolist() == kept
    expected = torch.zeros(5).index_copy(0, torch.tensor(kept), p[kept] / p[kept].sum())
    torch.testing.assert_close(shares, expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("length", "options"),
    [
        *((0, {}), (13, {}), (1, {"temperature": -0.1}), (1, {"top_k": -1}), (1, {"top_p": 0.0}), (1, {"top_p": 1.1})),
        (1, {"max_new_tokens": 0}),
    ],
)
def test_arguments_out_of_range(length: int, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        next(generate(make(), torch.zeros(1, length, dtype=torch.long), **{"max_new_tokens": 1, **options}))


def test_a_diverged_model_says_so() -> None:
    model = make()
    with torch.no_grad():
        model.lm_head.weight[3, 3] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        next(generate(model, torch.tensor([[1]]), 1))
