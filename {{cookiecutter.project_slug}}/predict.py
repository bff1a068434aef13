"""Classifies images: `python predict.py checkpoint=runs/<run> images=<file or folder>`; see `--help`."""

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.models.scripts import run_script


def main(argv: list[str]) -> None:
    run_script("predict", argv)


if __name__ == "__main__":
    run(main)
