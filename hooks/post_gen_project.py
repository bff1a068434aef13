"""Removes what was not chosen, starts a git repository, and prints the next commands.

Only paths of the tables below are removed, so files that a user has added stay when the template is applied again.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
PROJECT = Path.cwd()
PACKAGE = ANSWERS["package_name"]

# Files of each family, and files that several families share; * stands for any part of a name.
FAMILIES = {
    ("vit",): [
        *("{package}/models/vit", "tests/models/vit", "configs/*/vit.yaml", "configs/*/vit_*.yaml", "docs/vit*"),
    ],
    ("cnn",): [
        *("{package}/models/cnn", "tests/models/cnn", "configs/*/cnn.yaml", "configs/*/cnn_*.yaml", "docs/cnn*"),
    ],
    ("dit",): [
        *("{package}/models/dit", "tests/models/dit", "configs/*/dit.yaml", "configs/*/dit_*.yaml", "docs/dit*"),
        *("configs/objective", "configs/data/latents.yaml", "{package}/data/latents.py", "{package}/data/vae.py"),
        *("tests/data/*latents*", "tests/data/test_vae.py"),
        *("{package}/tools/prepare/latents.py", "tests/tools/prepare/test_prepare_latents.py"),
    ],
    ("llm",): [
        *("{package}/models/llm", "tests/models/llm", "configs/*/llm.yaml", "configs/*/llm_*.yaml", "docs/llm*"),
        *("configs/data/stdlib.yaml", "configs/data/text.yaml", "configs/data/tokens.yaml"),
        *("{package}/data/tokens*", "tests/data/test_tokens*", "export.py"),
        *("{package}/tools/prepare/tokens.py", "{package}/tools/prepare/documents.py"),
        *("tests/tools/prepare/test_documents.py", "tests/tools/prepare/test_tokens.py"),
        *("{package}/tools/robustness/text.py", "tests/tools/robustness/test_text.py"),
    ],
    ("vit", "cnn"): [
        *("{package}/models/classification", "tests/models/classification", "predict.py", "docs/classification.md"),
    ],
    ("vit", "cnn", "dit"): [
        *("{package}/norms/groupnorm.py", "configs/norm/gn.yaml", "tests/norms/test_groupnorm.py"),
        *("{package}/data/images.py", "{package}/data/image_sources.py", "{package}/data/transforms.py"),
        *("tests/data/test_images*", "tests/data/test_image_sources.py"),
        *("{package}/tools/robustness/images.py", "tests/tools/robustness/test_images.py"),
        "configs/data/digits.yaml",
        *(f"configs/data/{name}.yaml" for name in ("cifar10", "fashion_mnist", "folder", "imagenet")),
    ],
    ("vit", "dit", "llm"): ["{package}/models/residual.py", "tests/models/test_residual.py", "docs/residual.md"],
    ("dit", "llm"): [
        *("sample.py", "{package}/data/prepared.py", "{package}/models/layers.py", "tests/models/test_layers.py"),
        *("{package}/tools/prepare", "tests/tools/prepare", "prepare.py"),
    ],
}
ANSWERED = {
    ("tools", "core"): [
        *("{package}/tools", "tests/tools", "compare.py", "benchmark.py", "prepare.py"),
        *("docs/compare.md", "docs/benchmark.md", "tests/data/test_latents_runs.py"),
    ],
    ("license", "none"): ["LICENSE"],
}
CI = {"github": ".github", "gitlab": ".gitlab-ci.yml"}


def main():
    chosen = ANSWERS["families"]
    for families, paths in FAMILIES.items():
        if chosen not in ("all", *families):
            remove(paths)
    for (question, answer), paths in ANSWERED.items():
        if ANSWERS[question] == answer:
            remove(paths)
    remove([path for answer, path in CI.items() if answer != ANSWERS["ci"]])
    if not rendered_for_comparison():
        start_git()
        print_next_commands()


def remove(patterns):
    for pattern in patterns:
        for path in list(PROJECT.glob(pattern.format(package=PACKAGE))):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def rendered_for_comparison():
    """Returns whether `cruft update` or `cruft diff` renders this into a temporary directory, to compare and delete."""
    parent = PROJECT.parent
    temporary = parent.name.startswith("tmp") and parent.parent == Path(tempfile.gettempdir()).resolve()
    return temporary and "_output_dir" not in ANSWERS


def start_git():
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside a git hook
    env = {name: value for name, value in os.environ.items() if name not in elsewhere}

    def git(*arguments):
        return subprocess.run(["git", *arguments], env=env, capture_output=True, check=False).returncode == 0

    try:
        if not git("rev-parse", "--is-inside-work-tree") and git("init", "--quiet"):
            git("symbolic-ref", "HEAD", "refs/heads/main")
    except OSError:
        pass  # git is not installed


def print_next_commands():
    shell = os.environ.get("PWD")  # the user's directory; cookiecutter has changed into the project
    place = PROJECT.relative_to(shell) if shell and PROJECT.is_relative_to(shell) else PROJECT
    directory = f'"{place}"' if " " in str(place) else place
    commands = [f"cd {directory}", "uv run python train.py norm=dyt", "uv run tensorboard --logdir runs"]
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(f"\n{ANSWERS['project_slug']} is ready. Next:\n", *(f"  {one}" for one in commands), sep="\n", flush=True)
    except OSError:  # stdout is closed, which is no reason to fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
