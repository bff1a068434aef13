"""Measures the cost of norms: `python benchmark.py norm=all`, and in a whole model: `python benchmark.py model=...`."""

from {{cookiecutter.package_name}}.cli import print_options, run
from {{cookiecutter.package_name}}.tools.benchmark.main import HELP, USAGE, benchmark


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print_options(USAGE, HELP)
        return
    benchmark(argv)


if __name__ == "__main__":
    run(main)
