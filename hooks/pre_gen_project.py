"""Refuses answers that cannot become a working project, in one line that says what would be right.

Cookiecutter renders this file with Jinja and runs it alone, so the answers come as JSON: any text arrives as it is.
"""

import json
import keyword
import re
import sys
import unicodedata

SLUG_LENGTH = 60
PACKAGE_LENGTH = 40

# Directories and scripts at the root of the project, and what git ignores there.
OURS = """
train evaluate predict sample compare benchmark export prepare tests test conftest configs docs runs data
license build dist env venv checkpoints lightning_logs
"""
# What the project installs, under the names of import and of installation, and what comes along with it.
OTHERS = """
torch torchvision torchaudio torchgen functorch triton lightning lightning_fabric lightning_utilities
pytorch_lightning timm torchmetrics zstandard omegaconf antlr4 rich tensorboard matplotlib mpl_toolkits pylab sklearn
scikit_learn numpy scipy joblib pillow pil yaml pyyaml wandb mlflow mlflow_skinny comet_ml pytest py ruff mypy
mypyc pre_commit hatchling hatch uv pip setuptools wheel pkg_resources packaging typing_extensions tqdm requests
jinja2 markupsafe fsspec filelock sympy mpmath networkx safetensors tokenizers transformers datasets
huggingface_hub google grpc protobuf six werkzeug absl markdown markdown_it_py markdown_it mdurl pygments cycler
kiwisolver contourpy fonttools dateutil pluggy iniconfig attr attrs aiohttp nvidia cuda xdist pytest_xdist
execnet liger_kernel diffusers accelerate torch_fidelity importlib_metadata zipp httpx httpcore regex submitit
cloudpickle
"""
# Windows opens a device under these names, whatever extension follows.
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def refusal(answers):
    """The line that says what is wrong with `answers`, or None."""
    answers = {name: str(answer) for name, answer in answers.items()}
    for name in ("project_name", "description", "author"):
        line = text_refusal(name, answers[name])
        if line:
            return line
    return slug_refusal(answers["project_slug"]) or package_refusal(answers["package_name"])


def text_refusal(name, text):
    if not text.strip() and name != "description":
        return f"{name} is empty: write at least a word, for example {name}=Hare"
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            return f"{name} holds {character!a}: write one line of text without tabs and control characters"
    for opening in ("{" + follower for follower in "%#{"):
        if opening in text:
            # cruft hands every answer back to cookiecutter, which renders it.
            return f"{name} holds '{opening}', which the next update would evaluate: write '{opening[0]} {opening[1]}'"
    return None


def slug_refusal(slug):
    word = re.sub("[^a-z0-9]+", "-", slug[:SLUG_LENGTH].lower()).strip("-")
    hint = f"for example project_slug={word or 'my-project'}"
    if not slug:
        return f"project_slug is empty: name the project's directory, {hint}"
    if len(slug) > SLUG_LENGTH:
        return f"project_slug has {len(slug)} characters: use at most {SLUG_LENGTH}, {hint}"
    if not re.fullmatch("[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", slug) or ".." in slug:
        return (
            f"project_slug {slug!a} cannot name a directory and a distribution: use ASCII letters, digits and"
            f" '-', '_' or '.' between them, {hint}"
        )
    if slug.lower().partition(".")[0] in DEVICES:
        return f"project_slug '{slug}' is a device on Windows: add a word, {hint.replace('=', '=my-')}"
    if re.sub("[._-]+", "_", slug.lower()) in OTHERS.split():
        return f"project_slug '{slug}' is a package that the project installs: add a word, {hint.replace('=', '=my-')}"
    return None


def package_refusal(package):
    if not package:
        return "package_name is empty: name the Python package, for example package_name=my_project"
    if len(package) > PACKAGE_LENGTH:
        return (
            f"package_name has {len(package)} characters: use at most {PACKAGE_LENGTH}, as in package_name=my_project"
        )
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", package):
        word = re.sub("[^a-z0-9]+", "_", package.lower()).strip("_")
        hint = word if word[:1].isalpha() else f"my_{word}" if word else "my_project"
        return (
            f"package_name {package!a} cannot be imported: use ASCII letters, digits and '_', a letter first,"
            f" for example package_name={hint}"
        )
    taken = {
        "is a word of the Python language": {*keyword.kwlist, *keyword.softkwlist},
        "is a module of Python's standard library": sys.stdlib_module_names,
        "is a package that the project installs": OTHERS.split(),
        "is a script or directory of the project itself": OURS.split(),
        "is a device on Windows": DEVICES,
    }
    for what, names in taken.items():
        if package.lower() in {name.lower() for name in names}:
            return f"package_name '{package}' {what}: add a word, for example package_name=my_{package.lower()}"
    return None


if __name__ == "__main__":
    sys.exit(refusal(json.loads(r"""{{ cookiecutter | tojson }}""")))
