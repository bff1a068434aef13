"""Norms by name. A new norm is a file with a `@register("name")` class in this folder, and configs/norm/<name>.yaml."""

import importlib
import pkgutil

from .alpha_from_data import alpha_from_data_
from .functional import derf, dyt
from .pointwise import Derf, DyT, PointwiseNorm
from .registry import SITES, has_batch_norm, is_norm, make_norm, names, qk_norm_layer, register
from .replace import replace_norms

__all__ = [
    "SITES",
    "Derf",
    "DyT",
    "PointwiseNorm",
    "alpha_from_data_",
    "derf",
    "dyt",
    "has_batch_norm",
    "is_norm",
    "make_norm",
    "names",
    "qk_norm_layer",
    "register",
    "replace_norms",
]


def _import_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f".{module.name}", __name__)


_import_all()
