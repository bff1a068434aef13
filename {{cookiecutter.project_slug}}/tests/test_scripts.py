"""Every script in the project's root, as a person types it."""

import subprocess
import sys
from pathlib import Path

import pytest

from .runs import ROOT

HEAVY = {"lightning", "matplotlib", "scipy", "torch"}


@pytest.mark.parametrize("script", sorted(file.name for file in ROOT.glob("*.py")))
def test_a_mistyped_key_is_told_in_one_line_and_at_once(script: str, tmp_path: Path) -> None:
    """With status 2, and without an import that takes seconds."""
    command = [sys.executable, "-X", "importtime", str(ROOT / script), "nrm=dyt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    imports = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    (line,) = set(done.stderr.splitlines()) - set(imports)
    assert line.startswith("error: ")
    imported = {line.rpartition("|")[2].strip() for line in imports}
    assert "pathlib" in imported
    assert script == "benchmark.py" or not HEAVY & imported  # its answers depend on the device
    assert not list(tmp_path.iterdir())
