"""Trains a network: `python train.py norm=dyt`; `python train.py --help` lists what can be set."""

from pathlib import Path

from omegaconf import OmegaConf

from {{cookiecutter.package_name}}.cli import print_help, run
from {{cookiecutter.package_name}}.config import compose, recompose, value_of
from {{cookiecutter.package_name}}.config.errors import require
from {{cookiecutter.package_name}}.runs import RESUMABLE, resumed_run

FLAGS = ("-h", "--help", "--help-all", "--print-config")
USAGE = """python train.py [group=option ...] [key=value ...] [experiment=name] [resume=run]

  python train.py norm=dyt optim.lr=1e-3            trains with another norm and rate
  python train.py norm=dyt --print-config           prints the config as YAML, and does not train
  python train.py norm=derf --help                  shows the keys as this line sets them"""


def main(argv: list[str]) -> None:
    flags = [argument for argument in argv if argument.startswith("-")]
    argv = [argument for argument in argv if argument not in flags]
    for flag in flags:
        require(flag in FLAGS, f"{flag}: there is no such flag; choose from {', '.join(FLAGS)}")
    if set(flags) - {"--print-config"}:
        print_help(USAGE, argv, full="--help-all" in flags)
        return
    if (resume := value_of("resume", argv)) is not None:
        require(bool(resume), "resume=: name a run directory, as in resume=runs/<run>")
        run_dir, config = resumed_run(Path(resume))
        cfg = recompose(config, [*argv, f"resume={run_dir}"], anew=("trainer", "callbacks", "logger"), free=RESUMABLE)
    else:
        cfg = compose(argv)
    if flags:
        print(OmegaConf.to_yaml(cfg, resolve=True), end="")
        return

    # lightning takes seconds to import, which a mistyped key should not cost
    from {{cookiecutter.package_name}}.train import train

    train(cfg)


if __name__ == "__main__":
    run(main)
