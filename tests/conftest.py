"""One clean copy of the template and one bake for each set of answers, shared by all tests; nobody writes into them."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parents[1]
QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
CHOICES = {name: answer for name, answer in QUESTIONS.items() if isinstance(answer, list) and name[0] != "_"}
DEFAULTS = {name: values[0] for name, values in CHOICES.items()}
# The most that can be left out at once.
BARE = {"license": "none", "logger": "none", "ci": "none"}
PROJECT_DIR = "{{cookiecutter.project_slug}}"
PACKAGE_DIR = "{{cookiecutter.package_name}}"
IDENTITY = ["-c", "user.name=Hare", "-c", "user.email=hare@example.org", "-c", "commit.gpgsign=false"]

Bake = Callable[..., Path]


def one_by_one() -> list[dict[str, str]]:
    """Every value of every choice, the other answers being the defaults."""
    return [{name: value} for name, values in CHOICES.items() for value in values]


def label(answers: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in answers.items()) or "defaults"


def bake_into(directory: Path, template: Path, **answers: str) -> Path:
    # A settings file of its own, so that nothing is read from the home directory or written there.
    directory.mkdir(parents=True, exist_ok=True)
    settings = directory / "cookiecutter.yaml"
    settings.write_text(json.dumps({"replay_dir": str(directory), "cookiecutters_dir": str(directory)}))
    project = cookiecutter(
        str(template), no_input=True, extra_context=answers, output_dir=str(directory), config_file=str(settings)
    )
    return Path(project)


def files_of(directory: Path) -> set[str]:
    """Every file below `directory` that is not git's, as POSIX paths."""
    files = (file.relative_to(directory) for file in directory.rglob("*") if file.is_file())
    return {file.as_posix() for file in files if file.parts[0] != ".git"}


def commit_all(repository: Path, message: str = "x") -> None:
    """Commits everything in `repository`, which becomes one if it is none, whatever git's settings are here."""
    for command in (["init", "-q"], ["add", "-A"], [*IDENTITY, "commit", "-q", "--no-verify", "-m", message]):
        subprocess.run(["git", *command], cwd=repository, check=True)


def branch_of(project: Path) -> str:
    return (project / ".git" / "HEAD").read_text(encoding="utf-8").strip().rpartition("/")[2]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a clone of this working tree has it: without caches, virtual environments and lock files."""
    copy = tmp_path_factory.mktemp("template") / "dyt-template"
    listing = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:  # an unpacked archive
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "uv.lock")
        return Path(shutil.copytree(ROOT, copy, ignore=ignored))
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="session")
def bake(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """`bake(license="MIT")` is the project with these answers; do not change it, `shutil.copytree` it."""
    done: dict[tuple[tuple[str, str], ...], Path] = {}

    def bake(**answers: str) -> Path:
        key = tuple(sorted({**DEFAULTS, **answers}.items()))
        if key not in done:
            done[key] = bake_into(tmp_path_factory.mktemp("bake"), template, **answers)
        return done[key]

    return bake
