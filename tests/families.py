"""What each family brings besides the files that are named after it."""

import re
from pathlib import PurePosixPath

PLACES = "configs/task configs/model configs/experiment my_project/models my_project/tasks tests docs"
# The modules of data/ that no other family reads, the options that name them, and the scripts that serve no other.
MODULES = {"vit": ["images"], "llm": ["tokens"]}
OPTIONS = {"vit": ["cifar10", "digits", "fashion_mnist", "folder", "imagenet"], "llm": ["stdlib", "text", "tokens"]}
SCRIPTS: dict[str, list[str]] = {"vit": [], "llm": ["export", "prepare", "sample"]}
LIBRARIES = {"vit": {"scikit-learn", "timm", "torchvision"}, "llm": {"safetensors", "tokenizers", "transformers"}}


def named(names: set[str], word: str, places: str) -> set[str]:
    """Those of `names` that are called word.*, word_*, test_word.* or test_word_* and lie in one of `places`."""
    paths = {name: PurePosixPath(name) for name in names}
    return {
        name
        for name, path in paths.items()
        if str(path.parent) in places.split() and re.match(rf"(test_)?{word}[._]", path.name)
    }


def files_of_family(names: set[str], family: str) -> set[str]:
    """Those of `names`, a project's files, that it has for `family` alone."""
    ours = named(names, family, PLACES)
    ours |= {f"configs/data/{option}.yaml" for option in OPTIONS[family]}
    for module in MODULES[family]:
        ours |= named(names, module, "my_project/data tests docs")
    for script in SCRIPTS[family]:
        ours |= {f"{script}.py", f"tests/test_{script}.py"} & names
    return ours
