"""What `sample.py` answers, whatever the family."""

import pytest

import sample
from {{cookiecutter.package_name}}.errors import UsageError


def test_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    sample.main(["--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python sample.py checkpoint=<run or file>")
    assert "of a checkpoint with task=" in shown
    assert "  checkpoint=  " in shown


@pytest.mark.parametrize("argv", [[], ["checkpoint="], ["checkpoint=nowhere"]])
def test_without_a_checkpoint(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="checkpoint="):
        sample.main(argv)
