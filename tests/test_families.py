"""Leaving families out, tried with two more that exist here alone: nothing of a family stays but what others need."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import CHOICES, PACKAGE_DIR, PROJECT_DIR, Bake, bake_into, files_of
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter
from families import PLACES, files_of_family, named

FAMILIES = CHOICES["families"][1:]
# Family "toy" reads data of its own; "vit_toy" is named after another family and shares its data with it.
TOY = {
    "configs/task/toy.yaml": "# Toy\ndefaults:\n  model: toy\n  data: tales  # short ones\n",
    "configs/model/toy.yaml": "# Toy\n",
    "configs/model/toy_large.yaml": "# Toy\n",
    "configs/experiment/toy_tales.yaml": "defaults: {task: toy, data: sagas}\n",
    "configs/data/tales.yaml": "# Tales\nmodule: stories  # file in the package's data/\n",
    "configs/data/sagas.yaml": '# Sagas\nmodule: "stories"\n',
    f"{PACKAGE_DIR}/data/stories.py": "",
    f"{PACKAGE_DIR}/data/stories_bind.py": "",  # serves bind.py
    f"{PACKAGE_DIR}/models/toy.py": "",
    f"{PACKAGE_DIR}/models/toy_blocks.py": "",
    f"{PACKAGE_DIR}/tasks/toy.py": "",
    f"{PACKAGE_DIR}/tasks/toy_play.py": "",  # serves play.py, alone
    "bind.py": "",
    "play.py": "",
    "tests/test_bind.py": "",
    "tests/test_play.py": "",
    "docs/toy.md": "# Toy\n",
    "tests/test_toy.py": "",
    "tests/test_toy_blocks.py": "",
    f"{PACKAGE_DIR}/tasks/toy_draw.py": "",
    "tests/test_stories.py": "",
    "tests/toy_tiny.py": "",
}
VIT_TOY = {
    "configs/task/vit_toy.yaml": "# A toy that looks\ndefaults:\n  model: vit_toy\n  data: digits\n",
    "configs/model/vit_toy_small.yaml": "# A toy that looks\n",
    f"{PACKAGE_DIR}/tasks/vit_toy.py": "",
    "tests/test_vit_toy.py": "",
}
OTHERS = {
    "tests/test_toyota.py": "",  # no family's, whatever it begins with
    f"{PACKAGE_DIR}/callbacks/toy.py": "",  # families have no files there
    f"{PACKAGE_DIR}/tasks/vit_draw.py": "",
    "draw.py": "",  # served by vit and by toy
    "tests/test_draw.py": "",
    "ply.py": "",  # served by none
}


@pytest.fixture(scope="module")
def with_toys(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = Path(shutil.copytree(template, tmp_path_factory.mktemp("toys") / "template"))
    for name, text in {**TOY, **VIT_TOY, **OTHERS}.items():
        file = copy / PROJECT_DIR / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    questions = json.loads((copy / "cookiecutter.json").read_text(encoding="utf-8"))
    questions["families"] += ["toy", "vit_toy"]
    (copy / "cookiecutter.json").write_text(json.dumps(questions), encoding="utf-8")
    return copy


def render(names: dict[str, str]) -> set[str]:
    return {name.replace(PACKAGE_DIR, "my_project") for name in names}


def gone(everything: set[str], chosen: str) -> set[str]:
    """What a project that is baked for `chosen` alone lacks of `everything`."""
    families = {family: files_of_family(everything, family) - render(VIT_TOY) for family in FAMILIES}
    families |= {"toy": render(TOY), "vit_toy": render(VIT_TOY)}
    if chosen == "vit_toy":  # looks at the same images
        families["vit"] = named(everything, "vit", PLACES) - render(VIT_TOY)
    if chosen not in ("vit", "toy"):
        families["both"] = {"draw.py", "tests/test_draw.py"}
    return set().union(*(files for family, files in families.items() if family != chosen))


def test_all_of_them(with_toys: Path, tmp_path: Path) -> None:
    assert render({**TOY, **VIT_TOY, **OTHERS}) < files_of(bake_into(tmp_path, with_toys))


@pytest.mark.parametrize("chosen", [*FAMILIES, "toy", "vit_toy"])
def test_one_of_them(with_toys: Path, tmp_path: Path, chosen: str) -> None:
    everything = files_of(bake_into(tmp_path / "all", with_toys))
    project = bake_into(tmp_path / "one", with_toys, families=chosen)
    assert gone(everything, chosen) < everything
    assert files_of(project) == everything - gone(everything, chosen)
    defaults = (project / "configs/train.yaml").read_text(encoding="utf-8")
    original = (tmp_path / "all/my-project/configs/train.yaml").read_text(encoding="utf-8")
    assert defaults == original.replace("\n  task: vit\n", f"\n  task: {chosen}\n")


# Words that speak of one family. Names hold letters and digits, and TensorBoard keeps heat maps among its ["images"].
WORDS = {
    "vit": r"(?i)(?<![a-z])vits?(?![a-z])|\bvision|torchvision|timm|sklearn|scikit|(?<!letters, )digits|imagenet"
    r"|(?-i:(?<!\[\")images\b)",
    "llm": r"(?i)(?<![a-z])llms?(?![a-z])|llama|language model|tokeniz|stdlib|bits_per_byte",
}


@pytest.mark.parametrize("chosen", FAMILIES)
def test_no_word_of_the_others(bake: Bake, chosen: str) -> None:
    project = bake(families=chosen, logger="wandb")
    traces = []
    for name in sorted(files_of(project)):
        content = (project / name).read_bytes()
        if b"\0" in content:
            continue  # an image
        for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
            for family in set(FAMILIES) - {chosen}:
                if re.search(WORDS[family], line):
                    traces.append(f"{name}:{number}: {line}")
    assert not traces, "\n".join(traces)


def test_baking_over_a_project_leaves_the_users_family(with_toys: Path, tmp_path: Path) -> None:
    """`cookiecutter -f` with the same answers: what the template knows is as before, what the user added is there."""
    project = bake_into(tmp_path, with_toys, families="vit")
    before = files_of(project)
    mine = {
        "configs/task/mine.yaml": "defaults: {data: mine}\n",
        "configs/data/mine.yaml": "module: mine\n",
        "my_project/tasks/mine_paint.py": "",
        "paint.py": "",
        "mine.py": "",
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
    assert "families=toy: configs/task has no such family; it has llm, vit, vit_toy" in capfd.readouterr().err
