"""What comes out is linted, typed, built and tested, as its own CI would do it; all in this environment."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import BARE, CHOICES, Bake, files_of, label

LONGEST = "l" * 40


def run(*module: str, cwd: Path, **env: str) -> str:
    """`python -m <module>` in `cwd`; its output is what pytest shows when it fails."""
    command = [sys.executable, "-m", *module]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(module)}\n{done.stdout}{done.stderr}"
    return done.stdout


def writable(project: Path, place: Path) -> Path:
    return Path(shutil.copytree(project, place / project.name, ignore=shutil.ignore_patterns(".git")))


# Answers that leave parts of the code out.
PARTS = [*({"families": family} for family in CHOICES["families"][1:]), {"tools": "core"}]
slow = pytest.mark.slow


@pytest.mark.parametrize(
    "answers",
    [
        {},
        BARE,
        {"logger": "wandb", "python": CHOICES["python"][-1]},  # newer Pythons have other rules
        *PARTS,
        {"package_name": LONGEST},
        {"package_name": "x"},
    ],
    ids=label,
)
def test_ruff_finds_nothing(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    run("ruff", "check", "--no-cache", ".", cwd=project)
    run("ruff", "format", "--no-cache", "--check", ".", cwd=project)


@pytest.mark.parametrize(
    "answers", [{}, *(pytest.param(answers, marks=slow) for answers in ({"logger": "wandb"}, *PARTS))], ids=label
)
def test_mypy_finds_nothing(bake: Bake, tmp_path_factory: pytest.TempPathFactory, answers: dict[str, str]) -> None:
    cache = tmp_path_factory.getbasetemp() / "mypy"
    run("mypy", "--cache-dir", str(cache), cwd=bake(**answers))


def test_the_template_itself_is_tidy() -> None:
    root = Path(__file__).parents[1]
    run("ruff", "check", "--no-cache", ".", cwd=root)
    run("ruff", "format", "--no-cache", "--check", ".", cwd=root)


def test_wheel(bake: Bake, tmp_path: Path) -> None:
    """The package with everything in it, typed, and nothing beside it."""
    author = 'Hare "the \\ quick", \U0001f407'
    project = writable(bake(license="Apache-2.0", author=author, description='"; import os'), tmp_path)
    run("hatchling", "build", "--target", "wheel", "--directory", str(tmp_path), cwd=project)
    with zipfile.ZipFile(tmp_path / "my_project-0.1.0-py3-none-any.whl") as wheel:
        info = "my_project-0.1.0.dist-info/"
        names = {name for name in wheel.namelist() if not name.startswith(info)}
        metadata = wheel.read(info + "METADATA").decode("utf-8")
        assert wheel.read(info + "licenses/LICENSE") == (project / "LICENSE").read_bytes()
    assert names == {name for name in files_of(project) if name.startswith("my_project/")}
    assert "my_project/py.typed" in names
    assert f"\nAuthor: {author}\n" in metadata
    assert '\nSummary: "; import os\n' in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata


def test_dependencies_equal_the_templates(template: Path, bake: Bake) -> None:
    """Or what is tested here is not what a user installs."""
    ours = tomllib.loads((template / "pyproject.toml").read_text(encoding="utf-8"))
    baked = tomllib.loads((bake() / "pyproject.toml").read_text(encoding="utf-8"))
    assert baked["project"]["dependencies"] == ours["dependency-groups"]["baked"]
    assert baked["dependency-groups"]["dev"] == ours["dependency-groups"]["baked-dev"]
    assert baked["project"]["requires-python"] == ours["project"]["requires-python"]


def test_lightning_is_none_of_the_malicious_uploads(bake: Bake) -> None:
    """2.6.2 and 2.6.3."""
    dependencies = tomllib.loads((bake() / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (lightning,) = (item for item in dependencies if item.startswith("lightning"))
    lowest = tuple(map(int, re.fullmatch(r"lightning>=(\d+)\.(\d+)\.(\d+)", lightning).groups()))  # type: ignore[union-attr]
    assert lowest >= (2, 6, 4)


def test_pre_commit_uses_the_ruff_of_the_dev_group(template: Path, bake: Bake) -> None:
    for project in (template, bake()):
        hooks = (project / ".pre-commit-config.yaml").read_text(encoding="utf-8")
        minor = re.search(r"ruff-pre-commit\n +rev: v(\d+\.\d+)\.", hooks)
        assert minor
        assert f'"ruff>={minor[1]},' in (project / "pyproject.toml").read_text(encoding="utf-8")


def test_ci_runs_the_command_of_the_readme(template: Path) -> None:
    command = next(
        line for line in (template / ".ci" / "run").read_text(encoding="utf-8").splitlines() if line.startswith("pip")
    )
    assert command.endswith("uv run pytest")
    assert command in (template / "README.md").read_text(encoding="utf-8")
    assert os.access(template / ".ci" / "run", os.X_OK)
    assert ".ci/run" in (template / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("selected", ["not slow", pytest.param("slow", marks=slow)])
def test_the_projects_own_tests_pass(bake: Bake, tmp_path: Path, selected: str) -> None:
    output = run("pytest", "-m", selected, "--durations=10", cwd=writable(bake(), tmp_path))
    assert re.search(r"\b[1-9]\d* passed", output)


@slow
@pytest.mark.parametrize("answers", PARTS, ids=label)
def test_the_own_tests_of_a_part(bake: Bake, tmp_path: Path, answers: dict[str, str]) -> None:
    """All can be imported; those of whole runs pass."""
    project = writable(bake(**answers), tmp_path)
    assert re.search(r"\b[1-9]\d*", run("pytest", "-n0", "--collect-only", cwd=project))
    run("pytest", "tests/test_config.py", "tests/test_runs.py", "tests/callbacks/test_norm_monitor.py", cwd=project)
