"""What a few seeds say, and how sure they are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

CONFIDENCE = 0.95
ROUNDING = 1e-6  # of a metric: it is a number of single precision


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over `n` seeds; there is none of a single one."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of the differences by seed, and the ends of its confidence interval where there is one."""

    mean: float
    interval: tuple[float, float] | None
    n: int

    @property
    def excludes_zero(self) -> bool:
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def spread(values: Sequence[float]) -> Spread | None:
    """None of no values."""
    if not values:
        return None
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """`ours` less `theirs` by seed: the mean, and Student's interval, ± t std / sqrt(n) with n - 1 degrees of freedom.

    Pairs take out what a seed does to both, its order of the data say. There is no interval of one seed, nor where all
    differences are equal but for rounding, to which a metric that counts few samples can come. None without a seed in
    common.
    """
    from scipy.stats import t  # takes a second to import, which a mistyped key should not cost

    seeds = ours.keys() & theirs.keys()
    one = spread([ours[seed] - theirs[seed] for seed in sorted(seeds)])
    if one is None:
        return None
    if one.std is None or one.std <= ROUNDING * max(abs(values[seed]) for values in (ours, theirs) for seed in seeds):
        return Difference(one.mean, None, one.n)
    half = float(t.ppf((1 + CONFIDENCE) / 2, one.n - 1)) * one.std / math.sqrt(one.n)
    return Difference(one.mean, (one.mean - half, one.mean + half), one.n)
