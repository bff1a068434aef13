"""`python sample.py` with a language model."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import sample
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.data.tokens_text import Bytes
from {{cookiecutter.package_name}}.models.base import BaseModule
from {{cookiecutter.package_name}}.models.llm.generate import generate
from {{cookiecutter.package_name}}.models.llm.model import Llama
from {{cookiecutter.package_name}}.models.llm.sample import decode_stream

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


def expected(task: BaseModule, prompt: bytes, new: int, row: int = 0) -> str:
    """What the generator gives, with the defaults of sample.py."""
    how: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "first_row": row, "stop_at": 256}
    steps = generate(cast(Llama, task.eval_model), [list(prompt) or [256]], new, **how)
    tokens = [step[0] for step in steps if step[0] is not None]
    return bytes(token for token in [*prompt, *tokens] if token != 256).decode(errors="replace")


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
def test_it_goes_on_from_the_prompt_with_the_average(
    checkpoint: tuple[str, BaseModule], capsys: Out, typed: str, prompt: bytes
) -> None:
    where, task = checkpoint
    sample.main([where, f"prompt={typed}", "max_new_tokens=40"])
    shown = capsys.readouterr().out
    whole = expected(task, prompt, 40)
    assert shown.startswith(prompt.decode())
    assert whole.startswith(shown.removesuffix("\n")), "but for a character that is not complete"
    assert len(whole) - len(shown.removesuffix("\n")) <= 1


def test_several_texts_with_headers(checkpoint: tuple[str, BaseModule], capsys: Out, tmp_path: Path) -> None:
    where, task = checkpoint
    file = tmp_path / "prompts.txt"
    file.write_text("import \n\ndef f():\\n\n", encoding="utf-8")
    sample.main([where, f"prompts={file}", "n=2", "max_new_tokens=20"])
    shown = capsys.readouterr().out
    parts = re.split(r"--- (\d) of 4 ---\n", shown)
    assert parts[0] == ""
    assert parts[1::2] == ["1", "2", "3", "4"]
    prompts = [b"import ", b"import ", b"def f():\n", b"def f():\n"]
    for row, (prompt, text) in enumerate(zip(prompts, parts[2::2], strict=True)):
        assert expected(task, prompt, 20, row).startswith(text.removesuffix("\n")[:-1])
    assert parts[2] != parts[4]


@pytest.mark.parametrize("text", ["naïve 日本語 🙂 end", "🙂" * 100, "a" * 500 + "é", "\ufffd\ufffd x"])
@pytest.mark.parametrize("cut", [0, 1, 2, 5])
def test_characters_of_several_bytes_come_whole(text: str, cut: int) -> None:
    ids = list(text.encode())
    pieces = list(decode_stream(Bytes(), ids[:cut], [None, *ids[cut:]]))
    assert len(pieces) == len(ids) - cut
    assert "".join(pieces) == text[len(Bytes().decode(ids[:cut])) :]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("prompt=seventeen letters", "17 tokens"),
        ("temperature=-1", "temperature"),
        ("top_p=0", "top_p"),
        ("max_new_tokens=0", "max_new_tokens"),
        ("n=0", "n=0"),
        ("device=abacus", "device=abacus: PyTorch finds no such device here"),
        ("prompts=nowhere.txt", "prompts=nowhere.txt: expected a text file in UTF-8"),
        ("prompst=a", "prompst: there is no such key (did you mean prompt?)"),
    ],
)
def test_refusals(checkpoint: tuple[str, BaseModule], capsys: Out, option: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        sample.main([checkpoint[0], option])
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == "", "and nothing is printed before"
