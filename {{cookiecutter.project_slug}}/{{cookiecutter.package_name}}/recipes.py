"""What config files compute from other keys, as `${by_width:${norm.alpha0},${model.embed_dim},{1024:1,2048:0.5}}`."""

import math
from collections.abc import Callable, Mapping


def by_width(value: float | int, width: int, factors: Mapping[int, float | int]) -> float:
    """`value` times the factor of this width.

    Between the widths of `factors` it is interpolated, width and factor on logarithmic scales; outside it is that of
    the nearest.
    """
    known = sorted(factors)
    place = min(max(width, known[0]), known[-1])
    low, high = max(one for one in known if one <= place), min(one for one in known if one >= place)
    share = math.log(place / low) / math.log(high / low) if low < high else 0.0
    return value * round(factors[low] ** (1 - share) * factors[high] ** share, 6)


RESOLVERS: dict[str, Callable[..., float]] = {"by_width": by_width}
