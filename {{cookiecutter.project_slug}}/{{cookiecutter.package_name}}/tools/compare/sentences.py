"""A sentence for each norm, or cell of a grid, that its numbers support, and no more."""

import math
from collections.abc import Sequence

from .statistics import Difference, Spread


def decimals(spreads: Sequence[Spread | None]) -> int:
    """So many that the usual spread has two figures; 2 to 6, and 4 where there is none."""
    stds = sorted(one.std for one in spreads if one is not None and one.std)
    return min(6, max(2, 1 - math.floor(math.log10(stds[len(stds) // 2])))) if stds else 4


def number(value: float, precision: int, sign: bool = False) -> str:
    text = f"{value:{'+' if sign else ''}.{precision}f}"
    return text.replace("-", "", 1) if float(text) == 0 else text


def shown_spread(one: Spread, precision: int) -> str:
    """`0.986 ± 0.003 (n=3)`"""
    std = "" if one.std is None else f" ± {number(one.std, precision)}"
    return f"{number(one.mean, precision)}{std} (n={one.n})"


def shown_interval(interval: tuple[float, float], precision: int) -> str:
    return " to ".join(number(end, precision) for end in interval)


def sentence(
    label: str, one: Spread | None, difference: Difference | None, baseline: str, higher_is_better: bool, precision: int
) -> str:
    """What is known of `label`.

    Args:
        one: of its finished runs; None without one.
        difference: to the baseline, by seed; None where no seed finished under both.
        baseline: what it is compared to; empty for nothing, its own label for the baseline itself.
    """
    if one is None:
        return f"{label}: no run has finished."
    start = f"{label}: {shown_spread(one, precision)}"
    if baseline == label:
        return f"{start}, the baseline."
    if not baseline:
        return f"{start}."
    if difference is None:
        return f"{start}; no seed finished under it and {baseline}, so they are not compared."
    start += f", {number(difference.mean, precision, sign=True)} to {baseline}"
    if difference.n == 1:
        return f"{start}. One seed does not tell a difference from chance."
    if difference.interval is None:
        same = "equal" if difference.mean == 0 else "by the same difference"
        return f"{start}, {same} in each of {difference.n} seeds, so there is no spread to make an interval of."
    interval = f"95 % CI {shown_interval(difference.interval, precision)}"
    common = f" ({difference.n} seeds in common)" if difference.n != one.n else ""
    if not difference.excludes_zero:
        return f"{start}, {interval}{common}: within seed noise of {baseline}."
    verdict = "better" if (difference.mean > 0) == higher_is_better else "worse"
    return f"{start}, {interval}{common}, which excludes 0: {verdict} than {baseline}."


def caveat(compared: int, seeds: int) -> str:
    """What holds for all of these sentences; `compared` of them give an interval."""
    if not compared:
        return ""
    lines = [
        "The intervals are of paired differences by seed (Student's t). They speak of other seeds of this very recipe,"
        " not of other data, sizes or tuning."
    ]
    if compared > 1:
        lines.append(
            f"There are {compared} of them: one in twenty such intervals misses the true difference by chance, and"
            " none is widened for their number."
        )
    if seeds < 5:
        lines.append(f"With {seeds} seeds an interval is wide; within noise does not say that there is no difference.")
    return " ".join(lines)
