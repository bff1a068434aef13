"""The scripts that take a checkpoint, such as sample.py and export.py, and call its family."""

from pathlib import Path

from ..cli import print_options, read_options
from ..config.errors import UsageError, translate_errors
from . import NAMES, get_family

CHECKPOINT = {"checkpoint": ("", "a run directory, or a checkpoint file")}


def run_script(script: str, argv: list[str]) -> None:
    """Calls the `script` ("sample", "export" or "predict") of the checkpoint's family with the options of `argv`.

    Raises:
        UsageError: no such checkpoint, or one of a family that has no such script, or a wrong option.
    """
    asks_help = bool({"-h", "--help"} & set(argv))
    if not asks_help:  # before the families are imported
        from ..runs import saved_checkpoint

        given = dict(argument.partition("=")[::2] for argument in argv)
        checkpoint, saved = saved_checkpoint(Path(given.get("checkpoint", "")))
    parts = {name: getattr(get_family(name), script) for name in NAMES}
    parts = {name: part for name, part in parts.items() if part is not None}
    if asks_help:
        tables = {f"of a checkpoint with task={name}": {**CHECKPOINT, **part.options} for name, part in parts.items()}
        print_options(f"python {script}.py checkpoint=<run or file> [key=value ...]", tables)
        return
    family = saved["task"]["name"]
    if family not in parts:
        others = ", ".join(f"task={name}" for name in parts) or "none"
        raise UsageError(f"{checkpoint}: it is of task={family}, which {script}.py does not know; it knows {others}")
    options = read_options(argv, {**CHECKPOINT, **parts[family].options})
    del options["checkpoint"]
    with translate_errors():  # of an option that is out of range
        parts[family].run(checkpoint, saved, **options)
