"""How a bake ends: with a git repository where there should be one, and with the next commands."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import branch_of


def test_inside_a_repository_of_the_users(template: Path, tmp_path: Path) -> None:
    """A project in a directory of a larger repository becomes no repository of its own."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    done = bake_by_hand(template, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "my-project" / ".git").exists()


def test_without_git(template: Path, tmp_path: Path) -> None:
    done = bake_by_hand(template, tmp_path, PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "my-project" / ".git").exists()
    assert (tmp_path / "my-project" / "pyproject.toml").is_file()


def test_within_a_git_hook(template: Path, tmp_path: Path) -> None:
    """There git's variables point at another repository, which must stay as it is."""
    other = tmp_path / "other.git"
    done = bake_by_hand(template, tmp_path, GIT_DIR=str(other), GIT_INDEX_FILE=str(other / "index"))
    assert done.returncode == 0, done.stderr
    assert not other.exists()
    assert branch_of(tmp_path / "my-project") == "main"


def test_next_commands_start_from_where_the_user_is(template: Path, tmp_path: Path) -> None:
    here = tmp_path / "work"
    here.mkdir()
    outside = tmp_path / "my-project"
    for place, shown in ((here, "my-project"), (here / "a b", '"a b/my-project"'), (tmp_path, str(outside))):
        done = bake_by_hand(template, here, "--output-dir", str(place), PWD=str(here))
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()
        commands = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
        assert commands == [f"cd {shown}", "uv run python train.py norm=dyt", "uv run tensorboard --logdir runs"]


def test_output_that_nobody_reads(template: Path, tmp_path: Path) -> None:
    """`cookiecutter ... | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "--default-config", str(template)]
    done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "my-project" / "train.py").is_file()


def bake_by_hand(template: Path, cwd: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "--default-config", str(template), *arguments]
    return subprocess.run(command, cwd=cwd, env={**os.environ, "PWD": str(cwd), **env}, capture_output=True, text=True)
