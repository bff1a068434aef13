"""What each value of each option writes."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import CHOICES, Bake, files_of

# A sentence from each text that no other has, and the end of it.
LICENCES = {
    "MIT": ("Permission is hereby granted, free of charge", "OTHER DEALINGS IN THE\nSOFTWARE.\n"),
    "Apache-2.0": ("TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION", "limitations under the License.\n"),
    "BSD-3-Clause": ("Neither the name of the copyright holder", "POSSIBILITY OF SUCH DAMAGE.\n"),
}
WORKFLOWS = {"github": ".github/workflows/ci.yml", "gitlab": ".gitlab-ci.yml"}
STEPS = [
    "uv pip install --torch-backend cpu --editable . --group dev",
    "uv run --no-sync ruff check .",
    "uv run --no-sync ruff format --check .",
    "uv run --no-sync mypy",
    "uv run --no-sync pytest",
]

# Libraries that only these families need.
LIBRARIES = {
    "diffusers": {"dit"},
    "safetensors": {"llm"},
    "scikit-learn": {"vit", "cnn", "dit"},
    "timm": {"vit", "cnn", "dit"},
    "tokenizers": {"llm"},
    "torchvision": {"vit", "cnn", "dit"},
    "transformers": {"llm"},
}


def pyproject(project: Path) -> dict:
    return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("value", CHOICES["license"])
def test_license(bake: Bake, value: str) -> None:
    project = bake(license=value, author="A. Hare")
    metadata = pyproject(project)["project"]
    if value == "none":
        assert not {"license", "license-files"} & set(metadata)
        assert metadata["classifiers"] == ["Private :: Do Not Upload"]
        return
    text = (project / "LICENSE").read_text(encoding="utf-8")
    for name, (words, end) in LICENCES.items():
        assert (words in text) == (name == value)
        assert text.endswith(end) == (name == value)
    assert ("Copyright (c) A. Hare\n" in text) == (value != "Apache-2.0")  # whose text is the same for all
    assert metadata["license"] == value
    assert metadata["license-files"] == ["LICENSE"]
    assert "classifiers" not in metadata


@pytest.mark.parametrize("value", CHOICES["python"])
def test_python(bake: Bake, value: str) -> None:
    assert pyproject(bake(python=value))["project"]["requires-python"] == f">={value}"
    versions = list(dict.fromkeys([value, CHOICES["python"][-1]]))  # the oldest and the newest
    github = yaml.safe_load((bake(python=value) / WORKFLOWS["github"]).read_text(encoding="utf-8"))
    gitlab = yaml.safe_load((bake(python=value, ci="gitlab") / WORKFLOWS["gitlab"]).read_text(encoding="utf-8"))
    assert github["jobs"]["check"]["strategy"]["matrix"]["python"] == versions
    assert gitlab["check"]["parallel"]["matrix"] == [{"PYTHON": versions}]


@pytest.mark.parametrize("value", CHOICES["families"])
def test_families(bake: Bake, value: str) -> None:
    project = bake(families=value)
    families = sorted(file.stem for file in (project / "configs" / "task").glob("*.yaml"))
    if value == "all":
        assert families == sorted(CHOICES["families"][1:]), "cookiecutter.json offers exactly the families there are"
    else:
        assert families == [value]
    default = re.search(r"(?m)^  task: (\w+)", (project / "configs" / "train.yaml").read_text(encoding="utf-8"))
    assert default
    assert default[1] in families
    metadata = pyproject(project)
    listed = metadata["project"]["dependencies"] + metadata["dependency-groups"]["dev"]
    wanted = {re.split("[<>=]", item)[0] for item in listed}
    for library, users in LIBRARIES.items():
        assert (library in wanted) == bool(users & set(families)), library


@pytest.mark.parametrize("value", CHOICES["tools"])
def test_tools(bake: Bake, value: str) -> None:
    names = files_of(bake(tools=value))
    for part in ("my_project/tools/", "tests/tools/", "compare.py", "benchmark.py", "prepare.py", "docs/compare.md"):
        assert any(name.startswith(part) for name in names) == (value == "all"), part


@pytest.mark.parametrize("value", CHOICES["logger"])
def test_logger(bake: Bake, value: str) -> None:
    """The answer is the default of logger=, and its library is installed; the others are extras."""
    project = bake(logger=value)
    default = pyproject(bake())["project"]["dependencies"]
    added = [item for item in pyproject(project)["project"]["dependencies"] if item not in default]
    extras = pyproject(project)["project"]["optional-dependencies"]
    assert added == extras.get(value, [])
    train = yaml.safe_load((project / "configs" / "train.yaml").read_text(encoding="utf-8"))
    assert train["defaults"]["logger"] in (value, f"[tensorboard,{value}]")


@pytest.mark.parametrize("value", CHOICES["ci"])
def test_ci(bake: Bake, value: str) -> None:
    project = bake(ci=value)
    assert {name for name, file in WORKFLOWS.items() if (project / file).is_file()} == {value} - {"none"}
    if value == "none":
        return
    text = (project / WORKFLOWS[value]).read_text(encoding="utf-8")
    assert [step for step in STEPS if step not in text] == []
    assert "secret" not in text.lower()
    if value == "github":
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {"contents": "read"}
        expressions = set(re.findall(r"\$\{\{(.*?)\}\}", text))
        assert expressions == {" github.workflow ", " github.ref ", " matrix.python "}


def test_every_option_is_tested() -> None:
    assert {f"test_{name}" for name in CHOICES} <= set(globals())
