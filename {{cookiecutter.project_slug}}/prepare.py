"""Turns text into tokens, for data=tokens: `python prepare.py source=my.jsonl out=data/my tokenizer=train`."""

import sys

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.options import print_options, read_options

USAGE = "python prepare.py source=<file, folder or hf:NAME> out=<folder> [tokenizer=bytes|<file>|train] [key=value ...]"


def main(argv: list[str]) -> None:
    try:
        from {{cookiecutter.package_name}}.data.tokens_prepare import OPTIONS, prepare

        if {"-h", "--help"} & set(argv):
            print_options(USAGE, {"what is turned into tokens, and how": OPTIONS})
        else:
            prepare(**read_options(argv, OPTIONS))
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with what is missing", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run(main)
