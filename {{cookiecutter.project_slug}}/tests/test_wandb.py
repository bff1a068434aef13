"""Weights & Biases: which run of the server a run directory belongs to."""

import re
from pathlib import Path

from {{cookiecutter.package_name}}.loggers.wandb import run_id


def test_the_id_belongs_to_the_run_directory_and_not_to_its_name(tmp_path: Path) -> None:
    here, there = tmp_path / "here" / "mine", tmp_path / "there" / "mine"
    for run_dir in (here, there):
        run_dir.mkdir(parents=True)
    first = run_id(here)
    assert re.fullmatch("[0-9a-f]{16}", first or "")
    assert run_id(here) == first
    assert run_id(there) != first
