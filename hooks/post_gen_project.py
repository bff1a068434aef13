"""Removes what was not chosen, starts a git repository, and says what to type next.

Nothing here lists the families: a family is a file of configs/task/, and owns every file named after it. Root scripts
are found in the same way: `tasks/x_sample.py` or `data/x_sample.py` serves `sample.py`. What families share goes when
nothing that stays asks for it: data modules and groups of options that none of their files picks, and modules that were
imported and no longer are. Nothing that the template does not have is ever removed.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
# Cookiecutter tells the choices as well, cruft does not. With them `-f` spares the families that a user has added.
CHOICES = json.loads(r"""{{ (_cookiecutter if _cookiecutter is defined else {}) | tojson }}""")

PROJECT = Path.cwd()
PACKAGE = PROJECT / ANSWERS["package_name"]
CONFIGS = PROJECT / "configs"
TASKS = CONFIGS / "task"
DATA = CONFIGS / "data"
TESTS = PROJECT / "tests"
DOCS = PROJECT / "docs"

# A file of the package, or a script, imports modules in these ways; no parser, since a user's file may be broken.
FROM_IMPORT = re.compile(r"(?m)^[ \t]*from[ \t]+(\.{0,4})([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]*)")
IMPORT = re.compile(r"(?m)^[ \t]*import[ \t]+([^\n#]*)")

TRAIN = "uv run python train.py norm=dyt"
WATCH = "uv run tensorboard --logdir runs"


def main():
    remove_options()
    remove_families()
    if not rendered_for_comparison():
        start_git()
        print_next_commands()


def remove_options():
    if ANSWERS["license"] == "none":
        remove(PROJECT / "LICENSE")
    if ANSWERS["ci"] != "github":
        remove(PROJECT / ".github" / "workflows" / "ci.yml")
    if ANSWERS["ci"] != "gitlab":
        remove(PROJECT / ".gitlab-ci.yml")
    if ANSWERS["logger"] == "none":
        remove_named("wandb", PROJECT / "configs" / "logger", PACKAGE / "loggers", TESTS, DOCS)


def remove_families():
    chosen = ANSWERS["families"]
    if chosen == "all":
        return
    families = sorted(file.stem for file in TASKS.glob("*.yaml"))
    if chosen not in families:
        sys.exit(f"families={chosen}: configs/task has no such family; it has {', '.join(families) or 'none'}")
    dropped = [name for name in families if name != chosen and name in CHOICES.get("families", families)]
    kept = [name for name in families if name not in dropped]
    theirs, others = recipes(dropped, families)
    needed = modules_of(others)
    unused = modules_of(theirs) - needed
    groups = picked_groups(theirs) - picked_groups(others)
    scripts = served_scripts()
    modules = {file for file in imported_modules() if owner(file, [*kept, *needed]) is None}  # others go by their names

    places = [CONFIGS / group for group in ("task", "model", "experiment")]
    for family in dropped:
        remove_named(family, *places, PACKAGE / "models", PACKAGE / "tasks", TESTS, DOCS, families=families)
    for module in unused:
        remove_named(module, PACKAGE / "data", TESTS, DOCS)
        for option in DATA.glob("*.yaml"):
            if value_of("module", option) == [module]:
                remove(option)
    for group in groups:
        for option in (CONFIGS / group).glob("*.yaml"):
            remove(option)
    for script in scripts - served_scripts():  # a script that nothing served before is the user's
        remove(PROJECT / f"{script}.py")
        remove(TESTS / f"test_{script}.py")
    remove_orphans(modules)

    defaults = CONFIGS / "train.yaml"
    if set(value_of("task", defaults)) & set(dropped):
        text = defaults.read_text(encoding="utf-8")
        text = re.sub(r"(?m)^([^#\n]*\btask:[ \t]*)[\w-]+", rf"\g<1>{chosen}", text, count=1)
        defaults.write_bytes(text.encode("utf-8"))


def recipes(dropped, families):
    """The files that pick options: tasks and experiments of the families that are dropped, and all the others."""
    files = [CONFIGS / "train.yaml", *TASKS.glob("*.yaml"), *(CONFIGS / "experiment").glob("*.yaml")]
    theirs = [file for file in files if owner(file, families) in dropped]
    return theirs, [file for file in files if file not in theirs]


def modules_of(files):
    """The modules of `data/` that recipes name through their data options."""
    options = {option for file in files for option in value_of("data", file)}
    return {module for option in options for module in value_of("module", DATA / f"{option}.yaml")}


def picked_groups(files):
    """The groups, folders of configs/, of which recipes pick an option."""
    return {folder.name for folder in CONFIGS.glob("*/") if any(value_of(folder.name, file) for file in files)}


def imported_modules():
    """The modules in the package and its models/, tasks/, data/ and callbacks/ that it or a root script imports."""
    imported = set()
    for file in [*PROJECT.glob("*.py"), *PACKAGE.rglob("*.py")]:
        text = file.read_text(encoding="utf-8", errors="replace")
        names = [(PROJECT, name) for line in IMPORT.findall(text) for name in re.findall(r"[\w.]+", line)]
        for dots, module, line in FROM_IMPORT.findall(text):
            start = file.parents[len(dots) - 1] if dots else PROJECT
            names += [(start, module), *((start, f"{module}.{name}") for name in re.findall(r"\w+", line))]
        imported |= {start.joinpath(*filter(None, name.split("."))).with_suffix(".py") for start, name in names}
    places = [PACKAGE, *(PACKAGE / name for name in ("models", "tasks", "data", "callbacks"))]
    return {file for place in places for file in place.glob("*.py") if file in imported}


def remove_orphans(modules):
    """Removes those of `modules`, imported before, that nothing imports any more, until that leaves no others so."""
    stems = [file.stem for file in PACKAGE.rglob("*.py")] + [file.stem for file in modules]
    while orphans := {file for file in modules - imported_modules() if file.is_file() and is_ours(file)}:
        for file in orphans:
            remove(file)
            if not any(PACKAGE.rglob(file.name)):
                remove_named(file.stem, TESTS, DOCS, families=stems)


def served_scripts():
    """The scripts of the project's root for which a family or a data module has a file."""
    files = [*(PACKAGE / "tasks").glob("*.py"), *(PACKAGE / "data").glob("*.py")]
    scripts = {script.stem for script in PROJECT.glob("*.py")} - {"train", "evaluate"}
    return {script for script in scripts if any(file.stem.endswith(f"_{script}") for file in files)}


def value_of(key, file):
    """The plain values that a YAML file gives to `key`, at any depth; no YAML parser is at hand in a hook."""
    if not file.is_file():
        return []
    return re.findall(rf"(?m)^[^#\n]*\b{key}:[ \t]*[\"']?([\w-]+)", file.read_text(encoding="utf-8"))


def owner(file, families):
    """The family after which `file` is named (X.*, X_*.*, test_X.*, test_X_*.*), the longest name first, or None."""
    stem = file.name.partition(".")[0].removeprefix("test_")
    for family in sorted(families, key=len, reverse=True):
        if stem == family or stem.startswith(f"{family}_"):
            return family
    return None


def remove_named(name, *directories, families=()):
    for directory in directories:
        for file in list(directory.glob("*.*")):
            if owner(file, families or [name]) == name:
                remove(file)


def remove(file):
    """Deletes a file of the template, if it is there, and the directories that it leaves empty."""
    if not is_ours(file):
        return
    file.unlink(missing_ok=True)
    for directory in file.parents:
        if directory == PROJECT or not directory.is_dir() or any(directory.iterdir()):
            return
        directory.rmdir()


def is_ours(file):
    """Whether the template has `file`. Where nobody says where the template is, as under cruft, it has."""
    clone = Path(os.environ.get("PWD", "")) / ANSWERS.get("_repo_dir", "nowhere")
    for package in clone.glob("*cookiecutter.project_slug*/*cookiecutter.package_name*"):
        ours, theirs = (package, PACKAGE) if PACKAGE in file.parents else (package.parent, PROJECT)
        return (ours / file.relative_to(theirs)).is_file()
    return True


def rendered_for_comparison():
    """Whether `cruft update` or `cruft diff` bakes this into a temporary directory, to compare and delete it."""
    parent = PROJECT.parent
    temporary = parent.name.startswith("tmp") and parent.parent == Path(tempfile.gettempdir()).resolve()
    return temporary and "_output_dir" not in ANSWERS


def start_git():
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # the repository of a git hook that bakes this
    env = {name: value for name, value in os.environ.items() if name not in elsewhere}

    def git(*arguments):
        return subprocess.run(["git", *arguments], env=env, capture_output=True, check=False).returncode == 0

    try:
        if not git("rev-parse", "--is-inside-work-tree") and git("init", "--quiet"):
            git("symbolic-ref", "HEAD", "refs/heads/main")
    except OSError:
        pass  # no git on this machine: the project works without


def print_next_commands():
    shell = os.environ.get("PWD")  # where the user is; cookiecutter has moved since
    place = PROJECT.relative_to(shell) if shell and PROJECT.is_relative_to(shell) else PROJECT
    directory = f'"{place}"' if " " in str(place) else place
    lines = [f"{ANSWERS['project_slug']} is ready. Next:", ""]
    lines += [f"  {command}" for command in (f"cd {directory}", TRAIN, WATCH)]
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print("", *lines, sep="\n", flush=True)
    except OSError:  # nobody reads it, which is no reason to delete the project
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
