"""Asks hooks/pre_gen_project.py about the answers before anything is written.

A hook alone cannot refuse quietly: cookiecutter and cruft print a traceback of their own below its line. The last,
private variable of cookiecutter.json goes through the filter `checked`, which ends both programs with the line alone.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

from jinja2 import Environment
from jinja2.ext import Extension

# Read on import: `cruft create` deletes its clone, and this module outlives it in one process.
refusal = runpy.run_path(str(Path(__file__).parent / "hooks" / "pre_gen_project.py"))["refusal"]


class Checked(Extension):
    """The filter `checked`: an empty text for good answers, the end of the program for others."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters["checked"] = checked


def checked(answers: dict[str, Any]) -> str:
    line = refusal(answers)
    if line:
        sys.exit(line)
    return ""
