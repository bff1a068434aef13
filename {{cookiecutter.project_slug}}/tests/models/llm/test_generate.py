"""Generation: the cache, what is drawn, batches, and texts beyond the context."""

import itertools
from typing import Any

import pytest
import torch

from {{cookiecutter.package_name}}.models.llm.generate import generate, sample_token
from {{cookiecutter.package_name}}.models.llm.model import KVCache, Llama
from {{cookiecutter.package_name}}.norms import names

from .models import make, shake, some_tokens

PROMPTS = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5, 8, 9, 7, 9]]


def texts(net: Llama, prompts: list[list[int]], max_new_tokens: int, **options: Any) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in prompts]
    for step in generate(net, prompts, max_new_tokens, **options):
        for row, token in zip(rows, step, strict=True):
            if token is not None:
                row.append(token)
    return rows


@pytest.mark.parametrize("norm", names())
@pytest.mark.parametrize("parts", [[1] * 12, [12], [5, 1, 4, 2], [1, 11]])
@torch.no_grad()
def test_cached_logits_are_those_of_the_whole(norm: str, parts: list[int]) -> None:
    net = make(norm, qk_norm=True, embed_scale=True).eval()
    shake(net)
    tokens, cache = some_tokens(), KVCache(net.context)
    cached = [net(part, cache=cache) for part in tokens.split(parts, dim=1)]
    torch.testing.assert_close(torch.cat(cached, dim=1), net(tokens), rtol=1e-5, atol=1e-5)
    assert cache.length == 12
    with pytest.raises(ValueError, match="13 tokens are more than the context, 12"):
        net(tokens[:, :1], cache=cache)


@pytest.mark.parametrize("norm", ["rmsnorm", "dyt", "bn"])
def test_greedy_is_the_most_probable_token_each_time(norm: str) -> None:
    net = make(norm).eval()
    for prompt, got in zip(PROMPTS, texts(net, PROMPTS, 4, temperature=0.0), strict=True):
        text = list(prompt)
        for _ in range(4):
            text.append(int(net(torch.tensor([text]))[0, -1].argmax()))
        assert got == text[len(prompt) :]


def test_padding_of_the_vocabulary_is_not_drawn() -> None:
    net = make()
    own = net.lm_head.weight.shape[0] - 3
    with torch.no_grad():
        net.lm_head.weight[:own] *= 1e-3  # so that all of the rest are tempting
    assert max(itertools.chain(*texts(net, PROMPTS, 30, seed=1))) >= own
    assert max(itertools.chain(*texts(net, PROMPTS, 30, seed=1, vocab_size=own))) < own


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.3, "top_k": 20, "top_p": 0.9}])
def test_neighbours_do_not_matter(options: dict[str, Any]) -> None:
    """Not even where one prompt ends the window of another: 30 new tokens, and a context of 12."""
    net = make()
    together = texts(net, PROMPTS, 30, seed=5, **options)
    alone = [texts(net, [prompt], 30, seed=5, first_row=row, **options)[0] for row, prompt in enumerate(PROMPTS)]
    assert together == alone
    assert [len(row) for row in together] == [30, 30, 30]


def test_beyond_the_context_the_later_half_is_read_again() -> None:
    net = make().eval()
    (got,) = texts(net, [[7]], 40, temperature=0.0)
    text, start = [7], 0
    for _ in range(40):
        if len(text) - start > 12:
            start = len(text) - 6
        text.append(int(net(torch.tensor([text[start:]]))[0, -1].argmax()))
    assert got == text[1:]
    assert len(texts(make(context=1), [[7]], 5)[0]) == 5


def test_a_text_ends_where_it_says() -> None:
    net = make()
    free = texts(net, PROMPTS, 30, seed=2)
    stop = free[0][9]
    stopped = texts(net, PROMPTS, 30, seed=2, stop_at=stop)
    for whole, cut in zip(free, stopped, strict=True):
        assert cut == (whole[: whole.index(stop) + 1] if stop in whole else whole)
    assert len(list(generate(net, [PROMPTS[0]], 30, seed=2, stop_at=stop))) == free[0].index(stop) + 1


def test_drawn_as_often_as_probable() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, -torch.inf])
    uniform = torch.linspace(0, 1, 20001)[:-1]  # every part of the unit interval once
    for temperature in (0.5, 1.0, 2.0):
        drawn = sample_token(logits.expand(len(uniform), -1), temperature, 0, 1.0, uniform)
        shares = drawn.bincount(minlength=5) / len(uniform)
        expected = (logits.double() / temperature).softmax(-1).float()
        torch.testing.assert_close(shares, expected, rtol=0, atol=2e-4)
    cold = sample_token(logits.expand(len(uniform), -1), 1e-30, 0, 1.0, uniform)
    assert (cold == 2).all()


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
def test_what_may_be_drawn(top_k: int, top_p: float, kept: list[int]) -> None:
    p = torch.tensor([0.1, 0.4, 0.2, 0.25, 0.05])
    uniform = torch.linspace(0, 1, 2001)  # 1 itself too, which rounding can make
    drawn = sample_token(p.log().expand(len(uniform), -1), 1.0, top_k, top_p, uniform)
    shares = drawn.bincount(minlength=5) / len(uniform)
    assert shares.nonzero().flatten().tolist() == kept
    expected = torch.where(shares > 0, p, 0)
    torch.testing.assert_close(shares, expected / expected.sum(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("prompt", [[], list(range(13))], ids=len)
def test_prompts_without_tokens_or_beyond_the_context(prompt: list[int]) -> None:
    with pytest.raises(ValueError, match="12"):
        next(generate(make(), [prompt], 1))


@pytest.mark.parametrize("options", [{"temperature": -0.1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}], ids=str)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        next(generate(make(), [[1]], 1, **options))


def test_a_diverged_net_says_so() -> None:
    net = make()
    with torch.no_grad():
        net.lm_head.weight[3, 3] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        next(generate(net, [[1]], 1))
