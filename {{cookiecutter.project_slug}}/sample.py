"""Draws from a trained network: `python sample.py checkpoint=runs/<run>`; `python sample.py --help` lists the rest."""

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.models.scripts import run_script


def main(argv: list[str]) -> None:
    run_script("sample", argv)


if __name__ == "__main__":
    run(main)
