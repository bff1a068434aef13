"""Answers that are refused, in one line; and hostile answers that arrive as data."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from conftest import DEFAULTS, PROJECT_DIR, ROOT, Bake, bake_into, commit_all
from cookiecutter.utils import create_env_with_context

HOOK = runpy.run_path(str(ROOT / "hooks" / "pre_gen_project.py"))
GOOD = {
    "project_name": "My Project",
    "project_slug": "my-project",
    "package_name": "my_project",
    "description": "",
    "author": "A. Hare",
}

REFUSED = [
    ("project_slug", "", "is empty"),
    ("project_slug", "-x", "cannot name a directory.*project_slug=x$"),
    ("project_slug", ".hidden", "cannot name a directory.*project_slug=hidden$"),
    ("project_slug", "x-", "cannot name a directory"),
    ("project_slug", "..", "cannot name a directory.*project_slug=my-project$"),
    ("project_slug", "a..b", "cannot name a directory"),
    ("project_slug", "../escape", "cannot name a directory.*project_slug=escape$"),
    ("project_slug", "a/b", "cannot name a directory.*project_slug=a-b$"),
    ("project_slug", "a\\b", "cannot name a directory"),
    ("project_slug", "/tmp", "cannot name a directory"),
    ("project_slug", "C:", "cannot name a directory"),
    ("project_slug", "my project", "cannot name a directory.*project_slug=my-project$"),
    ("project_slug", "hare\n", "cannot name a directory.*project_slug=hare$"),
    ("project_slug", "größe", "cannot name a directory"),
    ("project_slug", "x; rm -rf ~", "cannot name a directory"),
    ("project_slug", "CON", "device on Windows.*project_slug=my-con$"),
    ("project_slug", "nul.txt", "device on Windows"),
    ("project_slug", "torch", "package that the project installs.*project_slug=my-torch$"),
    ("project_slug", "scikit-learn", "package that the project installs"),
    ("project_slug", "x" * 61, "61 characters: use at most 60"),
    ("package_name", "", "is empty"),
    ("package_name", "my-project", "cannot be imported.*package_name=my_project$"),
    ("package_name", "2fast", "cannot be imported.*package_name=my_2fast$"),
    ("package_name", "_private", "cannot be imported.*package_name=private$"),
    ("package_name", "a.b", "cannot be imported.*package_name=a_b$"),
    ("package_name", "a/b", "cannot be imported"),
    ("package_name", "-x", "cannot be imported"),
    ("package_name", "größe", "cannot be imported"),
    ("package_name", "x\n", "cannot be imported"),
    ("package_name", "class", "word of the Python language.*package_name=my_class$"),
    ("package_name", "none", "word of the Python language"),
    ("package_name", "match", "word of the Python language"),
    ("package_name", "json", "standard library"),
    ("package_name", "torch", "package that the project installs.*package_name=my_torch$"),
    ("package_name", "Torch", "package that the project installs"),
    ("package_name", "pytest", "package that the project installs"),
    ("package_name", "train", "script or directory of the project itself"),
    ("package_name", "configs", "script or directory of the project itself"),
    ("package_name", "aux", "device on Windows"),
    ("package_name", "x" * 41, "41 characters: use at most 40"),
    ("project_name", "", "is empty"),
    ("project_name", "two\nlines", r"holds '\\n'.*one line"),
    ("description", "tab\there", r"holds '\\t'"),
    ("description", "bell\a", r"holds '\\x07'"),
    ("description", "line\u2028separator", r"holds '\\u2028'"),
    ("author", "lone \udce4 surrogate", r"holds '\\udce4'"),
    ("author", "  ", "is empty"),
    ("project_name", "{{ cookiecutter }}", r"holds '\{\{'.*write '\{ \{'"),
    ("description", "{% raw %}", r"holds '\{%'"),
    ("author", "{# gone #}", r"holds '\{#'"),
]
HOSTILE = [
    'quotes " \' """ and `ticks`',
    "back\\slash \\n \\u0041 \\",
    '"; import os; os.abort() #',
    "'''; import os #",
    "braces { } }} %} #} ${X} $(id) %s {0}",
    "emoji \U0001f407\U0001f468\u200d\U0001f469\u200d\U0001f467, 漢字, \u202eturned\u202c, e\u0301",
    "<script>alert(1)</script> & ]]> -->",
    "# heading: - list, [link](x) | table | *x* _y_ : # no comment",
    "true",
    "1e3",
]


@pytest.mark.parametrize(("name", "value", "words"), REFUSED)
def test_refused(name: str, value: str, words: str) -> None:
    line = HOOK["refusal"]({**GOOD, name: value})
    assert re.search(words, line), line
    assert line.startswith(name)
    assert line.isascii()
    assert "\n" not in line


@pytest.mark.parametrize("name", ["project_slug", "package_name"])
def test_what_a_refusal_proposes_is_accepted(name: str) -> None:
    for refused, value, _ in REFUSED:
        if refused == name:
            proposed = HOOK["refusal"]({**GOOD, name: value}).rpartition(f"{name}=")[2]
            assert HOOK["refusal"]({**GOOD, name: proposed}) is None, (value, proposed)


@pytest.mark.parametrize(
    ("name", "value"), [("project_slug", "x.y_z-1"), ("package_name", "x"), ("package_name", "X1_")]
)
def test_unusual_but_right(name: str, value: str) -> None:
    assert HOOK["refusal"]({**GOOD, name: value}) is None


def test_what_the_project_installs_cannot_be_its_name(template: Path) -> None:
    groups = tomllib.loads((template / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    installed = {re.split("[<>=]", item)[0] for item in groups["baked"] + groups["baked-dev"]} | {"wandb", "hatchling"}
    imports = {
        name
        for name, distributions in packages_distributions().items()
        if installed & {distribution.replace("_", "-") for distribution in distributions}
    }
    assert {"sklearn", "pre_commit", "torch"} <= imports
    for name in installed:
        assert HOOK["slug_refusal"](name), name
    for name in filter(str.isidentifier, imports):
        assert name.startswith("_") or HOOK["package_refusal"](name), name


def test_what_lies_in_the_project_cannot_be_its_package(template: Path) -> None:
    for path in (template / PROJECT_DIR).iterdir():
        if path.name[0] not in ".{" and path.stem.isidentifier() and path.suffix in ("", ".py"):
            assert HOOK["package_refusal"](path.stem), path.name


@pytest.mark.parametrize("program", ["cookiecutter", "cruft"])
def test_a_person_sees_one_line(template: Path, tmp_path: Path, program: str) -> None:
    template = Path(shutil.copytree(template, tmp_path / "clone"))
    commit_all(template)
    arguments = {
        "cookiecutter": ["--default-config", str(template), "package_name=torch"],
        "cruft": ["create", str(template), "--extra-context", '{"package_name": "torch"}'],
    }[program]
    (tmp_path / "here").mkdir()
    command = [sys.executable, "-m", program, *arguments, "--no-input"]
    done = subprocess.run(command, cwd=tmp_path / "here", capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("package_name 'torch' is a package that the project installs: ")
    assert list((tmp_path / "here").iterdir()) == []


def test_the_hook_refuses_by_itself(template: Path, tmp_path: Path) -> None:
    """Without the extension: hooks are what a replay file goes through, too."""
    for value in ('"""', "\\", "'", "\U0001f407"):
        done = run_hook(template, tmp_path, {**GOOD, "author": value})
        assert (done.returncode, done.stderr) == (0, ""), value
    done = run_hook(template, tmp_path, {**GOOD, "author": "{{ 7 * 7 }}"})
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch("author holds '{{', .*\n", done.stderr)


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_text_is_data(bake: Bake, value: str) -> None:
    """One bake for each value, in every answer that takes free text, under each licence in turn."""
    licence = ["MIT", "BSD-3-Clause", "Apache-2.0"][HOSTILE.index(value) % 3]
    names = {"project_name": value, "project_slug": "hare", "package_name": "hare"}
    project = bake(**names, description=value, author=value, license=licence)
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata["description"] == value
    assert metadata["authors"] == [{"name": value}]
    if licence != "Apache-2.0":
        assert f"\nCopyright (c) {value}\n" in (project / "LICENSE").read_text(encoding="utf-8")
    for file in project.glob("*.md"):
        assert value in file.read_text(encoding="utf-8")
    for file in project.rglob("*.y*ml"):
        yaml.safe_load(file.read_text(encoding="utf-8"))
    for file in [*project.rglob("*.py"), *project.rglob("*.yaml"), *project.rglob("*.yml")]:
        text = file.read_text(encoding="utf-8")
        assert value in ("true", "1e3") or value not in text, "free text belongs into no Python or YAML"
        if file.suffix == ".py":
            compile(text, file, "exec")


def test_a_slug_that_looks_like_a_number_stays_text(bake: Bake) -> None:
    project = bake(project_slug="007", package_name="bond", logger="wandb")
    assert tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"] == "007"
    for file in project.rglob("*.y*ml"):
        text = file.read_text(encoding="utf-8")
        assert "007" not in text, f"{file}: YAML reads it as a number"


def test_names_follow_from_the_project_name(bake: Bake) -> None:
    project = bake(project_name="Größe 2: Über-Transformer")
    assert project.name == "grosse-2-uber-transformer"
    assert (project / "grosse_2_uber_transformer").is_dir()
    project = bake(project_name="Transformers " * 10)
    assert len(project.name) <= 60
    assert [len(path.parent.name) <= 40 for path in project.glob("*/py.typed")] == [True]


def test_a_choice_that_is_none_names_the_choices(template: Path, tmp_path: Path) -> None:
    """Cookiecutter itself refuses these, before any code of a template runs."""
    for name in DEFAULTS:
        with pytest.raises(ValueError, match=f"hare provided for choice variable {name}, but the choices are"):
            bake_into(tmp_path, template, **{name: "hare"})


def run_hook(template: Path, tmp_path: Path, answers: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    context = {"cookiecutter": answers}
    source = (template / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
    hook = tmp_path / "hook.py"
    hook.write_text(create_env_with_context(context).from_string(source).render(**context), encoding="utf-8")
    return subprocess.run([sys.executable, str(hook)], cwd=tmp_path, capture_output=True, text=True)
