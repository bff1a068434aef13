"""Measures a checkpoint: `python evaluate.py checkpoint=runs/<run>` prints the metrics that training printed.

With `shift=<name>` it measures them on shifted data too.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.config import recompose, value_of
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.runs import evaluable, saved_checkpoint

USAGE = "python evaluate.py checkpoint=<run or file> [split=test|val] [shift=name] [data=option] [trainer=option]"


def main(argv: list[str]) -> dict[str, Any]:
    if {"-h", "--help"} & set(argv):
        print(f"usage: {USAGE} [key=value ...]")
        if tools := robustness():
            print("\nshift, with five strengths of each kind:")
            for part in tools.shifts().values():
                print(f"  shift={part.NAME}  # {part.ABOUT}: {', '.join(part.KINDS)}")
        return {}
    path = Path(value_of("checkpoint", argv) or "")
    checkpoint, config = saved_checkpoint(path)
    split, shift = value_of("split", argv) or "test", value_of("shift", argv)
    own = [argument for argument in argv if argument.partition("=")[0] not in ("checkpoint", "split", "shift")]
    # a metric depends on the run's precision, not on its devices, and this machine may have others
    as_trained = ["trainer=auto", f"trainer.precision={config.get('trainer', {}).get('precision')}"]
    cfg = recompose(config, [*as_trained, *own], anew=("data", "trainer"), free=evaluable(config))

    if shift is not None:
        tools = robustness()
        if tools is None:
            raise UsageError(f"shift={shift}: this project was generated without tools (tools=core)")
        return tools.evaluate_shift(cfg, checkpoint, split, shift, out=None if checkpoint == path else path)
    from {{cookiecutter.package_name}}.train import evaluate

    return evaluate(cfg, checkpoint, split)


def robustness() -> ModuleType | None:
    """Returns the module that measures on shifted data; None in a project without tools."""
    try:
        return import_module("{{cookiecutter.package_name}}.tools.robustness.evaluate")
    except ModuleNotFoundError as error:
        if ".tools" not in str(error.name):
            raise
        return None


if __name__ == "__main__":
    run(main)
