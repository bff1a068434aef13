"""Turns text into tokens, for data=tokens: `python prepare.py source=my.jsonl out=data/my tokenizer=train`."""

from {{cookiecutter.package_name}}.cli import prepare, run
from {{cookiecutter.package_name}}.models.family import Script
from {{cookiecutter.package_name}}.tools.prepare.tokens import OPTIONS
from {{cookiecutter.package_name}}.tools.prepare.tokens import prepare as run_prepare

USAGE = "source=<file, folder or hf:NAME> out=<folder> [tokenizer=bytes|<file>|train] [key=value ...]"


def main(argv: list[str]) -> None:
    prepare("prepare", Script(run_prepare, OPTIONS), argv, USAGE, "what is turned into tokens, and how")


if __name__ == "__main__":
    run(main)
