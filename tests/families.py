"""What families bring besides the files that are named after them, and who needs it."""

import re
from collections.abc import Collection
from pathlib import PurePosixPath

PLACES = "configs/task configs/model configs/experiment my_project/models my_project/tasks tests docs"
# Each with the families that need it. Modules of data/, and the options that name them.
DATA = {"images": {"vit", "dit"}, "latents": {"dit"}, "tokens": {"llm"}}
OPTIONS = {
    "images": ["cifar10", "digits", "fashion_mnist", "folder", "imagenet"],
    "latents": ["latents"],
    "tokens": ["stdlib", "text", "tokens"],
}
# Groups of options that train.yaml does not pick, and scripts of the root.
GROUPS = {"objective": {"dit"}}
SCRIPTS = {"export": {"llm"}, "prepare": {"llm"}, "prepare_latents": {"dit"}, "sample": {"dit", "llm"}}
# Modules that are not found by name, but imported where they are needed.
IMPORTED = {
    "callbacks/quality": {"dit"},
    "callbacks/samples": {"dit"},
    "data/prepared": {"dit", "llm"},
    "models/init": {"vit", "dit", "llm"},
    "models/layers": {"dit", "llm"},
    "pictures": {"vit", "dit"},
}
LIBRARIES = {
    "diffusers": {"dit"},
    "safetensors": {"llm"},
    "scikit-learn": {"vit", "dit"},
    "timm": {"vit", "dit"},
    "tokenizers": {"llm"},
    "torchvision": {"vit", "dit"},
    "transformers": {"llm"},
}


def named(names: set[str], word: str, places: str) -> set[str]:
    """Those of `names` that are called word.*, word_*, test_word.* or test_word_* and lie in one of `places`."""
    paths = {name: PurePosixPath(name) for name in names}
    return {
        name
        for name, path in paths.items()
        if str(path.parent) in places.split() and re.match(rf"(test_)?{word}[._]", path.name)
    }


def files_of_data(names: set[str], module: str) -> set[str]:
    options = {f"configs/data/{option}.yaml" for option in OPTIONS[module]}
    return named(names, module, "my_project/data tests docs") | options


def files_without(names: set[str], families: Collection[str], kept: Collection[str]) -> set[str]:
    """Those of `names`, the files of a project with all `families`, that one with those of `kept` alone lacks."""

    def unneeded(table: dict[str, set[str]]) -> list[str]:
        return [name for name, users in table.items() if not users & set(kept)]

    gone = set()
    for family in set(families) - set(kept):
        gone |= named(names, family, PLACES)
    for module in unneeded(DATA):
        gone |= files_of_data(names, module)
    for group in unneeded(GROUPS):
        gone |= {name for name in names if name.startswith(f"configs/{group}/")}
    for script in unneeded(SCRIPTS):
        gone |= {f"{script}.py", f"tests/test_{script}.py"}
    for module in unneeded(IMPORTED):
        path = PurePosixPath("my_project", module)
        gone |= named(names, path.name, f"{path.parent} tests docs")
    return gone & names
