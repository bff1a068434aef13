"""Draws from a trained network: `python sample.py checkpoint=runs/<run>`; `python sample.py --help` lists the rest."""

from {{cookiecutter.package_name}}.cli import dispatch, run


def main(argv: list[str]) -> None:
    dispatch("sample", argv)


if __name__ == "__main__":
    run(main)
