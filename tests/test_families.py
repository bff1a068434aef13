"""Leaving families out, tried with a second and a third family that exist here alone."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import PACKAGE_DIR, PROJECT_DIR, bake_into, files_of
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter

# Family "toy" reads data of its own; "vit_toy" is named after another family and shares its data with it.
TOY = {
    "configs/task/toy.yaml": "# Toy\ndefaults:\n  model: toy\n  data: tales  # short ones\n",
    "configs/model/toy.yaml": "# Toy\n",
    "configs/model/toy_large.yaml": "# Toy\n",
    "configs/experiment/toy_tales.yaml": "defaults: {task: toy, data: sagas}\n",
    "configs/data/tales.yaml": "# Tales\nmodule: tokens  # file in the package's data/\n",
    "configs/data/sagas.yaml": '# Sagas\nmodule: "tokens"\n',
    f"{PACKAGE_DIR}/data/tokens.py": "",
    f"{PACKAGE_DIR}/models/toy.py": "",
    f"{PACKAGE_DIR}/models/toy_blocks.py": "",
    f"{PACKAGE_DIR}/tasks/toy.py": "",
    "docs/toy.md": "# Toy\n",
    "tests/test_toy.py": "",
    "tests/test_toy_blocks.py": "",
    "tests/test_tokens.py": "",
}
VIT_TOY = {
    "configs/task/vit_toy.yaml": "# A toy that looks\ndefaults:\n  model: vit_toy\n  data: digits\n",
    "configs/model/vit_toy_small.yaml": "# A toy that looks\n",
    f"{PACKAGE_DIR}/tasks/vit_toy.py": "",
    "tests/test_vit_toy.py": "",
}
SHARED = {
    "tests/test_toyota.py": "",  # no family's, whatever it begins with
    f"{PACKAGE_DIR}/callbacks/toy.py": "",  # families have no files there
}


@pytest.fixture(scope="module")
def with_toys(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = Path(shutil.copytree(template, tmp_path_factory.mktemp("toys") / "template"))
    for name, text in {**TOY, **VIT_TOY, **SHARED}.items():
        file = copy / PROJECT_DIR / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    questions = json.loads((copy / "cookiecutter.json").read_text(encoding="utf-8"))
    questions["families"] = ["all", "vit", "toy", "vit_toy"]
    (copy / "cookiecutter.json").write_text(json.dumps(questions), encoding="utf-8")
    return copy


def render(names: dict[str, str]) -> set[str]:
    return {name.replace(PACKAGE_DIR, "my_project") for name in names}


def images(everything: set[str]) -> set[str]:
    """What goes when no family looks at images: the module that they share, its options and its tests."""
    options = {name for name in everything if name.startswith("configs/data/")} - render(TOY)
    files = r"(my_project/data/|tests/(test_)?|docs/)images[._].*"
    return options | {name for name in everything if re.fullmatch(files, name)}


def vit(everything: set[str]) -> set[str]:
    places = "configs/(task|model|experiment)|my_project/(models|tasks)|tests|docs"
    return {name for name in everything if re.fullmatch(rf"({places})/(test_)?vit[._].*", name)} - render(VIT_TOY)


def test_all_of_them(with_toys: Path, tmp_path: Path) -> None:
    assert render({**TOY, **VIT_TOY, **SHARED}) < files_of(bake_into(tmp_path, with_toys))


@pytest.mark.parametrize("chosen", ["vit", "toy", "vit_toy"])
def test_one_of_them(with_toys: Path, tmp_path: Path, chosen: str) -> None:
    everything = files_of(bake_into(tmp_path / "all", with_toys))
    gone = {
        "vit": render(TOY) | render(VIT_TOY),
        "toy": vit(everything) | images(everything) | render(VIT_TOY),
        "vit_toy": vit(everything) | render(TOY),
    }[chosen]
    assert gone < everything
    project = bake_into(tmp_path / "one", with_toys, families=chosen)
    assert files_of(project) == everything - gone
    defaults = (project / "configs/train.yaml").read_text(encoding="utf-8")
    original = (tmp_path / "all/my-project/configs/train.yaml").read_text(encoding="utf-8")
    assert defaults == original.replace("\n  task: vit\n", f"\n  task: {chosen}\n")


def test_baking_over_a_project_leaves_the_users_family(with_toys: Path, tmp_path: Path) -> None:
    """`cookiecutter -f` with the same answers: what the template knows is as before, what the user added is there."""
    project = bake_into(tmp_path, with_toys, families="vit")
    before = files_of(project)
    mine = {
        "configs/task/mine.yaml": "defaults: {data: mine}\n",
        "configs/data/mine.yaml": "module: mine\n",
        "tests/test_mine.py": "",
    }
    for name, text in mine.items():
        (project / name).write_text(text, encoding="utf-8")
    cookiecutter(
        str(with_toys),
        no_input=True,
        overwrite_if_exists=True,
        extra_context={"families": "vit"},
        output_dir=str(tmp_path),
        config_file=str(tmp_path / "cookiecutter.yaml"),
    )
    assert files_of(project) == before | set(mine)


def test_a_family_that_is_not_there(with_toys: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(with_toys, tmp_path / "template"))
    (copy / PROJECT_DIR / "configs/task/toy.yaml").unlink()
    with pytest.raises(FailedHookException):
        bake_into(tmp_path, copy, families="toy")
    assert "families=toy: configs/task has no such family; it has vit, vit_toy" in capfd.readouterr().err
