"""A project that follows the template: `cruft create`, the user's edits, a newer template, `cruft update`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BARE, PROJECT_DIR, Bake, branch_of, commit_all, files_of, label

OTHERS = {"ci": "gitlab", "logger": "wandb", "license": "BSD-3-Clause", "author": "\"Hare\" \\ 'Igel' \U0001f407 {0}"}


def cruft(*arguments: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-m", "cruft", *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("answers", [{}, BARE, OTHERS], ids=label)
def test_update_of_an_edited_project(template: Path, bake: Bake, tmp_path: Path, answers: dict[str, str]) -> None:
    upstream = Path(shutil.copytree(template, tmp_path / "upstream"))
    commit_all(upstream)
    here = tmp_path / "here"
    here.mkdir()
    said = cruft("create", "--no-input", "--extra-context", json.dumps(answers), str(upstream), cwd=here)
    assert said.count("uv run") == 2
    project = here / "my-project"
    assert files_of(project) == files_of(bake(**answers)) | {".cruft.json"}
    assert branch_of(project) == "main"

    # The user: edits one file, deletes one, adds one.
    with (project / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("\n[tool.mine]\nedited = true\n")
    (project / ".pre-commit-config.yaml").unlink()
    (project / "mine.py").write_text("MINE = 1\n", encoding="utf-8")
    commit_all(project)

    # The template: changes the same file elsewhere, the deleted one as well, and brings a new one.
    source = upstream / PROJECT_DIR
    text = (source / "pyproject.toml").read_text(encoding="utf-8")
    (source / "pyproject.toml").write_text(text.replace('version = "0.1.0"', 'version = "0.2.0"'), encoding="utf-8")
    with (source / ".pre-commit-config.yaml").open("a", encoding="utf-8") as file:
        file.write("# newer\n")
    (source / "news.txt").write_text("For {{ cookiecutter.project_name }}.\n", encoding="utf-8")
    with (upstream / "hooks" / "pre_gen_project.py").open("a", encoding="utf-8") as file:
        file.write("\nNEWER = True\n")
    commit_all(upstream)

    before = files_of(project)
    said = cruft("update", "--skip-apply-ask", cwd=project)
    assert "uv run" not in said, "the next commands are for new projects"
    assert files_of(project) == before | {"news.txt"}
    assert (project / "news.txt").read_text(encoding="utf-8") == "For My Project.\n"
    merged = (project / "pyproject.toml").read_text(encoding="utf-8")
    assert 'version = "0.2.0"' in merged
    assert "[tool.mine]\nedited = true\n" in merged
    assert (project / "mine.py").read_text(encoding="utf-8") == "MINE = 1\n"
    assert "up to date" in cruft("check", cwd=project)


def test_update_changes_an_answer(template: Path, bake: Bake, tmp_path: Path) -> None:
    upstream = Path(shutil.copytree(template, tmp_path / "upstream"))
    commit_all(upstream)
    cruft("create", "--no-input", str(upstream), cwd=tmp_path)
    project = tmp_path / "my-project"
    commit_all(project)
    answers = {"logger": "wandb", "ci": "gitlab", "license": "none"}
    cruft("update", "--skip-apply-ask", "--variables-to-update", json.dumps(answers), cwd=project)
    assert files_of(project) == files_of(bake(**answers)) | {".cruft.json"}
