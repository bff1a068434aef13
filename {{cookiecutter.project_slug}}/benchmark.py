"""Measures what norms cost: `python benchmark.py norm=all`, and in a whole model: `python benchmark.py model=...`."""

from {{cookiecutter.package_name}}.benchmarks.choices import choose, print_help
from {{cookiecutter.package_name}}.cli import run


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print_help()
        return
    choices = choose(argv)

    # torch takes seconds to import, which a mistyped key should not cost
    from {{cookiecutter.package_name}}.benchmarks.run import benchmark

    benchmark(choices)


if __name__ == "__main__":
    run(main)
