"""Files that are whole or not there."""

from pathlib import Path

import pytest

from {{cookiecutter.package_name}}.utils import replace, write_text


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    def full(file: Path) -> None:
        file.write_text("half")
        raise OSError("no space left on device")

    write_text(tmp_path / "file", "whole")
    with pytest.raises(OSError, match="no space"):
        replace(tmp_path / "file", full)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "whole"
