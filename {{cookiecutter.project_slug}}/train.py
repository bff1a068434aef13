"""Trains a network: `python train.py norm=dyt`; `python train.py --help` lists what can be set."""

from pathlib import Path

from {{cookiecutter.package_name}}.cli import print_help, run
from {{cookiecutter.package_name}}.config import compose, recompose, value_of
from {{cookiecutter.package_name}}.config.errors import require
from {{cookiecutter.package_name}}.runs import RESUMABLE, resumed_run

USAGE = "python train.py [group=option ...] [key=value ...] [experiment=name] [resume=run]"


def main(argv: list[str]) -> None:
    if {"-h", "--help"} & set(argv):
        print_help(USAGE, [argument for argument in argv if argument not in ("-h", "--help")])
        return
    if (resume := value_of("resume", argv)) is not None:
        require(bool(resume), "resume=: name a run directory, as in resume=runs/<run>")
        run_dir, config = resumed_run(Path(resume))
        cfg = recompose(config, [*argv, f"resume={run_dir}"], anew=("trainer", "callbacks", "logger"), free=RESUMABLE)
    else:
        cfg = compose(argv)

    # lightning takes seconds to import, which a mistyped key should not cost
    from {{cookiecutter.package_name}}.train import train

    train(cfg)


if __name__ == "__main__":
    run(main)
