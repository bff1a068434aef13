"""Turns text into tokens, for data=tokens: `python prepare.py source=my.jsonl out=data/my tokenizer=train`."""

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.options import prepare

USAGE = "source=<file, folder or hf:NAME> out=<folder> [tokenizer=bytes|<file>|train] [key=value ...]"


def main(argv: list[str]) -> None:
    prepare("prepare", argv, USAGE, "what is turned into tokens, and how")


if __name__ == "__main__":
    run(main)
