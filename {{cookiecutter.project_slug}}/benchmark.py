"""Measures what norms cost: `python benchmark.py norm=all`, and in a whole model: `python benchmark.py model=...`."""

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.tools.benchmark.choices import choose, print_help


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print_help()
        return
    choices = choose(argv)

    # torch takes seconds to import, which a mistyped key should not cost
    from {{cookiecutter.package_name}}.tools.benchmark.run import benchmark

    benchmark(choices)


if __name__ == "__main__":
    run(main)
