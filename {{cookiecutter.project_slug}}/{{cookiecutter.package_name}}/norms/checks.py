"""What norms ask of the values of section `norm`. They are named as one types them: `norm.alpha0=-1`."""

import math
from numbers import Real
from typing import Any

from ..errors import UsageError

SITES = ("attn", "ffn", "final")  # what a norm stands before: attention, the feed-forward network, the head

KERNELS = ("auto", "triton", "plain")


def known_site(key: str, value: Any) -> str:
    if value not in SITES:
        raise UsageError(f"{key}={value}: expected one of {', '.join(SITES)}")
    return str(value)


def known_kernel(value: Any) -> str:
    if value not in KERNELS:
        raise UsageError(f"norm.kernel={value}: choose {', '.join(KERNELS[:-1])} or {KERNELS[-1]}")
    return str(value)


def number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise UsageError(f"norm.{key}={value}: expected a number")
    return float(value)


def positive(key: str, value: Any) -> float:
    if number(key, value) <= 0:
        raise UsageError(f"norm.{key}={value}: expected a number above 0")
    return float(value)


def share(key: str, value: Any) -> float:
    if not 0 < number(key, value) <= 1:
        raise UsageError(f"norm.{key}={value}: expected a number above 0, at most 1")
    return float(value)
