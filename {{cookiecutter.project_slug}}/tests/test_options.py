"""Options of the scripts that are not about a config, and what those answer that take up a checkpoint."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from {{cookiecutter.package_name}}.cli import read_options
from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.models.scripts import run_script

from .runs import ROOT

SCRIPTS = [file.stem for file in ROOT.glob("*.py") if "import run_script" in file.read_text()]
OPTIONS: dict[str, tuple[Any, str]] = {
    "text": ("", "any"),
    "n": (1, "a count"),
    "heat": (0.8, "how hot"),
    "flag": (False, "or not"),
}


def test_values_of_the_defaults_types() -> None:
    assert read_options([], OPTIONS) == {"text": "", "n": 1, "heat": 0.8, "flag": False}
    given = ["n=3", "heat=2", "n=4", "flag=true"]
    assert read_options(given, OPTIONS) == {"text": "", "n": 4, "heat": 2.0, "flag": True}


@pytest.mark.parametrize("text", ["f(x=1)", "${seed}", "null", "[1,", "007", "", "two\nlines", "1e3"])
def test_text_is_what_was_typed(text: str) -> None:
    assert read_options([f"text={text}"], OPTIONS)["text"] == text


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("n=1.5", "n=1.5: expected a whole number"),
        ("n=", "n=: expected a whole number"),
        ("flag=1", "flag=1: expected true or false"),
        ("heat=warm", "heat=warm: expected a number"),
        ("heat=nan", "heat=nan: expected a number"),
        ("heat=inf", "heat=inf: expected a number"),
        ("hart=1", "hart: there is no such key (did you mean heat?); --help lists them"),
        ("text", "text: expected key=value; --help lists the keys"),
    ],
)
def test_refusals(argument: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        read_options([argument], OPTIONS)


def test_a_family_that_has_no_such_part(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    torch.save({"config": {"task": {"name": "sculpture"}}, "global_step": 0, "state_dict": {}}, file)
    with pytest.raises(UsageError, match=r"it is of task=sculpture, which sample\.py does not know; it knows"):
        run_script("sample", [f"checkpoint={file}"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_lists_the_options(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    import_module(script).main(["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python {script}.py checkpoint=<run or file>")
    assert "of a checkpoint with task=" in shown
    assert "  checkpoint=  " in shown


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("argv", [[], ["checkpoint="], ["checkpoint=nowhere"]])
def test_without_a_checkpoint(script: str, argv: list[str]) -> None:
    with pytest.raises(UsageError, match="checkpoint="):
        import_module(script).main(argv)


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (BrokenPipeError, 141)])
def test_stopped_by_the_reader(tmp_path: Path, error: type[BaseException], status: int) -> None:
    """Ctrl-C, or a pipe whose other end is closed: the shell's own status, and no traceback."""
    package = UsageError.__module__.partition(".")[0]
    code = f"from {package}.cli import run\ndef main(argv): print('half'); raise {error.__name__}\nrun(main)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize(
    ("output", "status"), [("| head -1", 141), ("> /dev/full", 2), (">&-", 0)], ids=["closed pipe", "full", "closed"]
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_output_that_cannot_be_written(output: str, status: int) -> None:
    command = f"set -o pipefail; {sys.executable} train.py --help {output}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.count("\n") == (status == 2)


def test_print_config_is_yaml_and_makes_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = import_module("train").main
    argv = ["optim.lr=0.125", f"runs={tmp_path / 'runs'}"]
    main([*argv, "--print-config"])
    assert OmegaConf.create(capsys.readouterr().out) == plain(compose(argv))
    assert not (tmp_path / "runs").exists()
    for wrong in ("optim.lr=-1", "--foo"):
        with pytest.raises(UsageError, match=wrong.partition("=")[0]):
            main([wrong, "--print-config"])
