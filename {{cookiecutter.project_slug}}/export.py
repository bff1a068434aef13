"""Writes a trained network for other programs: `python export.py checkpoint=runs/<run> out=<folder>`; see `--help`."""

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.models.scripts import run_script


def main(argv: list[str]) -> None:
    run_script("export", argv)


if __name__ == "__main__":
    run(main)
