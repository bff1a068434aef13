"""Writes a trained network for other programs: `python export.py checkpoint=runs/<run> out=<folder>`; see `--help`."""

from {{cookiecutter.package_name}}.cli import dispatch, run


def main(argv: list[str]) -> None:
    dispatch("export", argv)


if __name__ == "__main__":
    run(main)
