"""`python sample.py` with a language model."""

import re
from typing import Any, cast

import pytest
import torch

import sample
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.models.base import BaseModule
from {{cookiecutter.package_name}}.models.llm.generate import generate
from {{cookiecutter.package_name}}.models.llm.model import Llama

from .models import save_checkpoint
from .tiny import TINY

Out = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, BaseModule]:
    """Its weights and their average differ."""
    file = tmp_path_factory.mktemp("run") / "last.ckpt"
    task = save_checkpoint(file, [*TINY.argv, "norm=dyt", "ema.decay=0.9"])
    with torch.no_grad():
        task.model.lm_head.weight.zero_()
    saved = torch.load(file, weights_only=True)
    torch.save({**saved, "state_dict": task.state_dict()}, file)
    return f"checkpoint={file}", task


def expected(task: BaseModule, prompt: bytes, new: int, n: int = 1) -> list[str]:
    """Returns the texts that the generator gives, with the defaults of sample.py."""
    options: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "stop_at": 256}
    start = torch.tensor([list(prompt) or [256]] * n)
    steps = generate(cast(Llama, task.eval_model), start, new, **options)
    rows = torch.cat((start, torch.stack(list(steps), dim=1)), dim=1).tolist()
    return [bytes(token for token in row if token != 256).decode(errors="replace") for row in rows]


@pytest.mark.parametrize(
    ("typed", "prompt"),
    [
        ("def f(x=1):", b"def f(x=1):"),
        (r"if a:\n\tb", b"if a:\n\tb"),
        (r"'\\n' \d", rb"'\n' \d"),
        ("${x} null", b"${x} null"),
        ("naïve", "naïve".encode()),
        ("", b""),
    ],
)
def test_a_text_continues_the_prompt_with_the_average(
    checkpoint: tuple[str, BaseModule], capsys: Out, typed: str, prompt: bytes
) -> None:
    where, task = checkpoint
    sample.main([where, f"prompt={typed}", "max_new_tokens=40"])
    shown = capsys.readouterr().out.removesuffix("\n")
    (text,) = expected(task, prompt, 40)
    assert shown.startswith(prompt.decode())
    assert shown == text.removesuffix(text[len(shown) :])
    assert set(text[len(shown) :]) <= {"\N{REPLACEMENT CHARACTER}"}, "but for a character that is not complete"


def test_several_texts_with_headers(checkpoint: tuple[str, BaseModule], capsys: Out) -> None:
    where, task = checkpoint
    sample.main([where, "prompt=import ", "n=3", "max_new_tokens=20"])
    parts = re.split(r"--- (\d) of 3 ---\n", capsys.readouterr().out)
    assert parts[::2][1:] == [f"{text}\n" for text in expected(task, b"import ", 20, n=3)]
    assert parts[1::2] == ["1", "2", "3"]
    assert len(set(parts[2::2])) == 3


@pytest.mark.parametrize(
    "option",
    [
        *("prompt=seventeen letters", "temperature=-1", "top_p=0", "max_new_tokens=0", "n=0"),
        *("device=abacus", "prompst=a"),
    ],
)
def test_options_that_cannot_be(checkpoint: tuple[str, BaseModule], capsys: Out, option: str) -> None:
    with pytest.raises(UsageError) as caught:
        sample.main([checkpoint[0], option])
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == "", "nothing is printed before"
