"""Projects of a single family: nothing of the others stays, and files of the user are never removed."""

import re
import runpy
from pathlib import Path

import pytest
from conftest import CHOICES, Bake, bake_into, files_of
from cookiecutter.main import cookiecutter
from cookiecutter.utils import create_env_with_context

FAMILIES = CHOICES["families"][1:]

# Words that speak of one family. Names hold letters and digits, TensorBoard keeps heat maps among its ["images"], and
# timm's smallest network, for tests of any family, is its "test_vit".
WORDS = {
    "vit": r"(?i)(?<![a-z])(?<!test_)vits?(?![a-z])|\bvision",
    "cnn": r"(?i)(?<![a-z])cnns?(?![a-z])|resnet|convnext|convolution",
    "dit": r"(?i)(?<![a-z])dits?(?![a-z])|diffus|denois|latent|fr[eé]chet|(?<!size_)guidance|autoencoder|\bvae\b",
    "llm": r"(?i)(?<![a-z])llms?(?![a-z])|llama|language model|tokeniz|stdlib|bits_per_byte",
}


# And of what several share.
SHARED = {
    ("vit", "cnn", "dit"): r"(?i)torchvision|timm|sklearn|scikit|(?<!letters, )digits|imagenet|(?-i:(?<!\[\")images\b)",
}


@pytest.mark.parametrize("chosen", FAMILIES)
def test_no_word_of_the_others(bake: Bake, chosen: str) -> None:
    project = bake(families=chosen, logger="wandb")
    words = [words for family, words in WORDS.items() if family != chosen]
    words += [words for families, words in SHARED.items() if chosen not in families]
    traces = []
    for name in sorted(files_of(project)):
        if not name.endswith((".md", ".toml", ".yaml", ".yml")):
            continue
        for number, line in enumerate((project / name).read_text(encoding="utf-8").splitlines(), start=1):
            if any(re.search(one, line) for one in words):
                traces.append(f"{name}:{number}: {line}")
    assert not traces, "\n".join(traces)


@pytest.mark.parametrize("chosen", FAMILIES)
def test_its_own_files_are_there(bake: Bake, chosen: str) -> None:
    everything, kept = files_of(bake()), files_of(bake(families=chosen))
    assert {name for name in everything if re.search(rf"/{chosen}[/_.]", name)} <= kept < everything
    others = [family for family in FAMILIES if family != chosen]
    assert not [name for name in kept if re.search(rf"/({'|'.join(others)})[/_.]", name)]


def test_applied_again_it_leaves_the_users_files(template: Path, tmp_path: Path) -> None:
    """`cookiecutter -f` with the same answers."""
    project = bake_into(tmp_path, template, families="vit")
    before = files_of(project)
    mine = {"configs/task/mine.yaml", "configs/data/mine.yaml", "my_project/models/mine/model.py", "tests/test_mine.py"}
    for name in mine:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).touch()
    cookiecutter(
        str(template),
        no_input=True,
        overwrite_if_exists=True,
        extra_context={"families": "vit"},
        output_dir=str(tmp_path),
        config_file=str(tmp_path / "cookiecutter.yaml"),
    )
    assert files_of(project) == before | mine


def test_every_path_of_the_hook_is_there(template: Path, bake: Bake, tmp_path: Path) -> None:
    """Or a file that has moved would stay in projects that should not have it."""
    context = {"cookiecutter": {"package_name": "my_project"}}
    source = (template / "hooks" / "post_gen_project.py").read_text(encoding="utf-8")
    hook = tmp_path / "hook.py"
    hook.write_text(create_env_with_context(context).from_string(source).render(**context), encoding="utf-8")
    tables = runpy.run_path(str(hook))
    project = bake()
    patterns = [pattern for table in ("FAMILIES", "ANSWERED") for paths in tables[table].values() for pattern in paths]
    assert [one for one in patterns if not any(project.glob(one.format(package="my_project")))] == []
