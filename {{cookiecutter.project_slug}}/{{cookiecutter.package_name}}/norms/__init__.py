"""The norms, by name. For one more, add a file with a `@register("name")` class here, and configs/norm/name.yaml."""

import importlib
import pkgutil

from .checks import SITES
from .functional import derf, dyt
from .pointwise import Derf, DyT, PointwiseNorm
from .registry import has_batch_norm, is_norm, make_norm, names, register

__all__ = [
    "SITES",
    "Derf",
    "DyT",
    "PointwiseNorm",
    "derf",
    "dyt",
    "has_batch_norm",
    "is_norm",
    "make_norm",
    "names",
    "register",
]


def _import_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        if not module.ispkg:
            importlib.import_module(f".{module.name}", __name__)


_import_all()
