"""Measures a checkpoint: `python evaluate.py checkpoint=runs/<run>` prints the metrics that training printed."""

from pathlib import Path

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.config import recompose, value_of
from {{cookiecutter.package_name}}.runs import EVALUABLE, saved_checkpoint

USAGE = "python evaluate.py checkpoint=<run or file> [split=test|val] [data=option] [trainer=option] [key=value ...]"


def main(argv: list[str]) -> dict[str, float]:
    if {"-h", "--help"} & set(argv):
        print(f"usage: {USAGE}")
        return {}
    checkpoint, config = saved_checkpoint(Path(value_of("checkpoint", argv) or ""))
    split = value_of("split", argv) or "test"
    own = [argument for argument in argv if argument.partition("=")[0] not in ("checkpoint", "split")]
    # a metric depends on the run's precision, not on its devices, and this machine may have others
    as_trained = ["trainer=auto", f"trainer.precision={config.get('trainer', {}).get('precision')}"]
    cfg = recompose(config, [*as_trained, *own], anew=("data", "trainer"), free=EVALUABLE)

    from {{cookiecutter.package_name}}.fit import evaluate

    return evaluate(cfg, checkpoint, split)


if __name__ == "__main__":
    run(main)
