"""Which files come out for which answers, and what every one of them must be."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from conftest import BARE, CHOICES, Bake, files_of, label, one_by_one

ALL = [*one_by_one(), BARE]
every_bake = pytest.mark.parametrize("answers", ALL, ids=label)

NOT_ON_WINDOWS = re.compile(r'["|<>:?*\\]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)


@every_bake
def test_no_empty_directory(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    directories = (path for path in project.rglob("*") if path.is_dir() and ".git" not in path.parts)
    assert [path for path in directories if not any(path.iterdir())] == []


@every_bake
def test_no_jinja_left_and_tidy_text(bake: Bake, answers: dict[str, str]) -> None:
    """What the project's own pre-commit hooks would change on the first commit counts as a fault, too."""
    project = bake(**answers)
    faults = []
    for name in sorted(files_of(project)):
        content = (project / name).read_bytes()
        if b"\0" in content:
            continue  # an image
        text = content.decode("utf-8")
        jinja = r"(?<!\$)\{\{|\{[%#]" if name.startswith(".github/") else r"\{[{%#]"  # GitHub writes ${{ }}
        for pattern, fault in (
            (jinja, "Jinja"),
            (r"cookiecutter\s*\.", "Jinja"),
            (r"\r", "carriage return"),
            (r"(?m)[ \t]$", "space at the end of a line"),
            (r"\A\n|\n\n\Z|[^\n]\Z", "not exactly one newline at the end, or one at the start"),
        ):
            if re.search(pattern, text):
                faults.append(f"{name}: {fault}")
    assert faults == []


def test_git_ignores_none_of_them(bake: Bake) -> None:
    project = bake()
    listing = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=project, capture_output=True, text=True, check=True
    )
    assert set(listing.stdout.split("\n")[:-1]) == files_of(project)


def test_windows_can_check_it_out(template: Path, bake: Bake) -> None:
    for names in (files_of(template), files_of(bake())):
        assert len({name.lower() for name in names}) == len(names)
        parts = {part for name in names for part in name.split("/")}
        assert [part for part in parts if NOT_ON_WINDOWS.search(part)] == []
        assert max(map(len, names)) < 140  # of 260, less the place of the clone


def test_every_choice_has_words(template: Path) -> None:
    """A person at the prompt reads words, not keys."""
    questions = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    words = questions["__prompts__"]
    assert list(words) == [name for name in questions if not name.startswith("_")]
    for name, values in CHOICES.items():
        assert list(words[name]) == ["__prompt__", *values]
