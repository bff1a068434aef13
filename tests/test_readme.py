"""What a baked project's README shows as code, typed in as it stands."""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHOICES, Bake

BLOCK = re.compile(r"^```(?:python|yaml)\n(# (\S+?):?(?: [^\n]*)?\n.*?)^```$", re.MULTILINE | re.DOTALL)
QUICK = ["trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1"]
QUICK += ["model.depth=1", "data.total_batch_size=32"]


def python(project: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout


def files_of_readme(project: Path) -> dict[str, str]:
    return {name: text for text, name in BLOCK.findall((project / "README.md").read_text(encoding="utf-8"))}


@pytest.mark.parametrize("families", CHOICES["families"])
def test_every_bake_says_the_same_of_ones_own_norm(bake: Bake, families: str) -> None:
    assert files_of_readme(bake(families=families)) == files_of_readme(bake())


@pytest.fixture(scope="module")
def project(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with every file that its README shows, each named in its first line."""
    project = Path(shutil.copytree(bake(), tmp_path_factory.mktemp("readme") / "my-project"))
    files = files_of_readme(project)
    assert list(files) == ["my_project/norms/relsign.py", "configs/norm/relsign.yaml"]
    for name, text in files.items():
        assert not (project / name).exists()
        (project / name).write_text(text, encoding="utf-8")
    return project


def test_ones_own_norm_passes_the_projects_ci(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    python(project, "-m", "ruff", "check", "--no-cache", "my_project/norms")
    python(project, "-m", "ruff", "format", "--no-cache", "--check", "my_project/norms")
    cache = tmp_path_factory.getbasetemp() / "mypy"
    python(project, "-m", "mypy", "--cache-dir", str(cache), "my_project/norms/relsign.py")
    said = python(
        project,
        "-m",
        "pytest",
        "-k",
        "relsign or config_agrees",
        *map(str, (project / "tests" / "norms").glob("test_registry*")),
    )
    assert re.search(r"\b[2-9]\d passed", said), said


def test_ones_own_norm_trains(project: Path) -> None:
    python(project, "train.py", "norm=relsign", *QUICK)
    with (project / "runs" / "vit-relsign-1" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        tags = {row["tag"] for row in csv.DictReader(file)}
    assert {"alpha/00_blocks.0.norm1", "saturated/00_blocks.0.norm1"} <= tags
