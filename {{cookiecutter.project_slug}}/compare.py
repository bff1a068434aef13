"""Trains and compares combinations: `python compare.py norm=dyt,ln seed=0,1,2`; `--help` lists the options."""

import sys

from {{cookiecutter.package_name}}.cli import print_options, run
from {{cookiecutter.package_name}}.tools.compare.main import OPTIONS, SLURM, compare

USAGE = "python compare.py norm=dyt,ln seed=0,1,2 [group=option,... ] [key=value,... ] [out=folder] [jobs=N]"


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print_options(USAGE, {"of the comparison": OPTIONS, "under launcher=slurm": SLURM})
        print("\nOther keys are those of train.py, and of several values each is tried: python train.py --help")
        return
    outcome = compare(argv)
    if outcome.interrupted:
        print("interrupted: the same command goes on", file=sys.stderr)
        raise KeyboardInterrupt
    if outcome.failed:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
