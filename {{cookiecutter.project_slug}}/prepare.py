"""Turns text into tokens, for data=tokens: `python prepare.py source=my.jsonl out=data/my tokenizer=train`."""

import sys

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.config import CONFIGS, compose_script
from {{cookiecutter.package_name}}.show import print_script_help

USAGE = "python prepare.py source=<file, folder or hf:NAME> out=<folder> [tokenizer=bytes|<file>|train] [key=value ...]"


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print_script_help(USAGE, CONFIGS / "prepare.yaml")
        return
    try:
        from {{cookiecutter.package_name}}.data.tokens_prepare import prepare

        prepare(**compose_script("prepare", argv))
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with what is missing", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run(main)
