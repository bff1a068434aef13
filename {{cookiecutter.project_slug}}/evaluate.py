"""Measures a checkpoint: `python evaluate.py checkpoint=runs/<run>` prints the metrics that training printed.
{%- if cookiecutter.tools == "all" %}

With `shift=<name>` it measures them on shifted data too.
{% endif %}"""

from pathlib import Path
from typing import Any

from {{cookiecutter.package_name}}.cli import run
from {{cookiecutter.package_name}}.config import recompose, value_of
from {{cookiecutter.package_name}}.runs import evaluable, saved_checkpoint

{%- set shift = " [shift=name]" if cookiecutter.tools == "all" else "" %}

USAGE = "python evaluate.py checkpoint=<run or file> [split=test|val]{{shift}} [data=option] [trainer=option]"


def main(argv: list[str]) -> dict[str, Any]:
    if {"-h", "--help"} & set(argv):
        print(f"usage: {USAGE} [key=value ...]")
{%- if cookiecutter.tools == "all" %}
        from {{cookiecutter.package_name}}.tools.robustness.evaluate import shifts

        print("\nshift, with five strengths of each kind:")
        for part in shifts().values():
            print(f"  shift={part.NAME}  # {part.ABOUT}: {', '.join(part.KINDS)}")
{%- endif %}
        return {}
    path = Path(value_of("checkpoint", argv) or "")
    checkpoint, config = saved_checkpoint(path)
    split = value_of("split", argv) or "test"
{%- if cookiecutter.tools == "all" %}
    shift = value_of("shift", argv)
{%- endif %}
    own = [argument for argument in argv if argument.partition("=")[0] not in ("checkpoint", "split"{{', "shift"' if shift}})]
    # a metric depends on the run's precision, not on its devices, and this machine may have others
    as_trained = ["trainer=auto", f"trainer.precision={config.get('trainer', {}).get('precision')}"]
    cfg = recompose(config, [*as_trained, *own], anew=("data", "trainer"), free=evaluable(config))
    out = None if checkpoint == path else path  # a run gets files beside the metrics
{%- if cookiecutter.tools == "all" %}
    if shift is not None:
        from {{cookiecutter.package_name}}.tools.robustness.evaluate import evaluate_shift

        return evaluate_shift(cfg, checkpoint, split, shift, out=out)
{%- endif %}
    from {{cookiecutter.package_name}}.train import evaluate

    return evaluate(cfg, checkpoint, split, out)


if __name__ == "__main__":
    run(main)
