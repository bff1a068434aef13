"""Leaving families out, tried with two more that exist here alone: nothing of a family stays but what others need."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import CHOICES, PACKAGE_DIR, PROJECT_DIR, Bake, bake_into, files_of
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter
from families import DATA, GROUPS, IMPORTED, SCRIPTS, files_of_data, files_without

FAMILIES = CHOICES["families"][1:]
# Family "toy" has data and a group of its own; "vit_toy" is named after another family and shares its data with it.
TOY = {
    "configs/task/toy.yaml": "# Toy\ndefaults:\n  model: toy\n  data: tales  # short ones\n  mood: mild\n",
    "configs/model/toy.yaml": "# Toy\n",
    "configs/model/toy_large.yaml": "# Toy\n",
    "configs/experiment/toy_tales.yaml": "defaults: {task: toy, data: sagas}\n",
    "configs/data/tales.yaml": "# Tales\nmodule: stories  # file in the package's data/\n",
    "configs/data/sagas.yaml": '# Sagas\nmodule: "stories"\n',
    "configs/mood/mild.yaml": "# Mild\n",
    "configs/mood/wild.yaml": "# Wild\n",
    f"{PACKAGE_DIR}/data/stories.py": "from .images import show\n",  # which others find by its name
    f"{PACKAGE_DIR}/data/stories_bind.py": "",  # serves bind.py
    f"{PACKAGE_DIR}/models/toy.py": "",
    f"{PACKAGE_DIR}/models/toy_blocks.py": "from .bricks import (\n    Brick,\n)\n",
    f"{PACKAGE_DIR}/models/bricks.py": "def lay():\n    from . import mortar\n",
    f"{PACKAGE_DIR}/models/mortar.py": "from .. import axle\n",  # goes once the bricks have gone
    f"{PACKAGE_DIR}/tasks/toy.py": "from ..callbacks.watch import Watch\nfrom ..models.gears import Gear\n",
    f"{PACKAGE_DIR}/callbacks/watch.py": "",
    f"{PACKAGE_DIR}/axle.py": "",
    f"{PACKAGE_DIR}/wheels.py": "",
    f"{PACKAGE_DIR}/tasks/toy_play.py": "",  # serves play.py, alone
    "bind.py": "",
    "play.py": f"from {PACKAGE_DIR}.wheels import roll\nimport json, {PACKAGE_DIR}.axle as axle\n",
    "tests/test_bind.py": "",
    "tests/test_bricks.py": "",
    "tests/test_bricks_laid.py": "",
    "docs/bricks.md": "# Bricks\n",
    "tests/test_wheels.py": "",
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
    f"{PACKAGE_DIR}/tasks/vit_toy.py": "from ..models.gears import Gear\n",
    "tests/test_vit_toy.py": "",
}
OTHERS = {
    "tests/test_toyota.py": "",  # no family's, whatever it begins with
    f"{PACKAGE_DIR}/callbacks/toy.py": "",  # families have no files there
    f"{PACKAGE_DIR}/tasks/vit_draw.py": "",
    "draw.py": "",  # served by vit and by toy
    "tests/test_draw.py": "",
    "ply.py": "",  # served by none
    f"{PACKAGE_DIR}/models/gears.py": "",  # both toys have some
    "tests/test_gears.py": "",
    f"{PACKAGE_DIR}/models/kites.py": "",  # which nothing imports by name
    f"{PACKAGE_DIR}/callbacks/axle.py": "",  # as is the toy's, so the tests may be of either
    "tests/test_axle.py": "",
    "tests/test_mortarboard.py": "",
    "configs/mood_swings/none.yaml": "# Picked by none\n",
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
    gone = files_without(everything, FAMILIES, [chosen]) - render(VIT_TOY)
    if chosen == "vit_toy":  # looks at the same images
        gone -= files_of_data(everything, "images") | {"my_project/pictures.py"}
    for family, files in {"toy": TOY, "vit_toy": VIT_TOY}.items():
        if chosen != family:
            gone |= render(files)
    if chosen not in ("vit", "toy"):
        gone |= {"draw.py", "tests/test_draw.py"}
    if chosen not in ("toy", "vit_toy"):
        gone |= {"my_project/models/gears.py", "tests/test_gears.py"}
    return gone


def test_what_families_share_is_there(bake: Bake) -> None:
    """Or a name in these tables would say nothing."""
    names = files_of(bake())
    assert {f"{script}.py" for script in SCRIPTS} | {f"my_project/{module}.py" for module in IMPORTED} <= names
    assert {f"my_project/data/{module}.py" for module in DATA} <= names
    assert set(GROUPS) <= {name.split("/")[1] for name in names if name.startswith("configs/")}
    for module in DATA:
        assert files_of_data(names, module) <= names


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


# Words that speak of one family. Names hold letters and digits, TensorBoard keeps heat maps among its ["images"], and
# timm's smallest network, for tests of any family, is its "test_vit".
WORDS = {
    "vit": r"(?i)(?<![a-z])(?<!test_)vits?(?![a-z])|\bvision",
    "dit": r"(?i)(?<![a-z])dits?(?![a-z])|diffus|denois|latent|fr[eé]chet|(?<!size_)guidance|autoencoder|\bvae\b",
    "llm": r"(?i)(?<![a-z])llms?(?![a-z])|llama|language model|tokeniz|stdlib|bits_per_byte",
}


# And of what several share.
SHARED = {
    ("vit", "dit"): r"(?i)torchvision|timm|sklearn|scikit|(?<!letters, )digits|imagenet|(?-i:(?<!\[\")images\b)",
}


@pytest.mark.parametrize("chosen", FAMILIES)
def test_no_word_of_the_others(bake: Bake, chosen: str) -> None:
    project = bake(families=chosen, logger="wandb")
    words = [words for family, words in WORDS.items() if family != chosen]
    words += [words for families, words in SHARED.items() if chosen not in families]
    traces = []
    for name in sorted(files_of(project)):
        content = (project / name).read_bytes()
        if b"\0" in content:
            continue  # an image
        for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
            if any(re.search(one, line) for one in words):
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
        # named after what the template keeps elsewhere
        "configs/mood/mine.yaml": "# My own\n",
        "my_project/models/toy_of_mine.py": "from .brittle import Part\n",
        "my_project/models/brittle.py": "import\n",
        "tests/test_bricks_of_mine.py": "",
        "docs/wheels_of_mine.md": "",
    }
    for name, text in mine.items():
        (project / name).parent.mkdir(exist_ok=True)
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
    assert "families=toy: configs/task has no such family; it has dit, llm, vit, vit_toy" in capfd.readouterr().err
