"""What finished runs have left, as train.py and evaluate.py write it."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

Curve = dict[int, float]  # values by optimiser step


@dataclass(frozen=True)
class Result:
    """A finished run.

    Args:
        value: the metric that is compared; None if the run diverged.
        curves: `train/loss`, `val/...` and so on, by tag.
        alphas: at the end, by layer in order of depth; empty under norms that have none.
        shift: what evaluate.py measured away from the training data, if it was asked to.
    """

    seed: int
    summary: Mapping[str, Any]
    value: float | None
    curves: Mapping[str, Curve]
    alphas: Mapping[str, float]
    shift: Mapping[str, Any] | None = None

    @property
    def rate(self) -> tuple[str, float] | None:
        """Throughput: what is counted, and how many a second."""
        rates = {key: value for key, value in self.summary.items() if key.endswith("_per_second")}
        return next(((key.removesuffix("_per_second"), value) for key, value in rates.items()), None)


def read_result(run: Path, seed: int, metric: str, shift: str = "") -> Result | str:
    """The result of a run with a `summary.json`, or what is missing in it, in one line."""
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        curves = read_curves(run / "metrics.csv")
        file = run / f"shift-{shift}.json"
        shifted = json.loads(file.read_text(encoding="utf-8")) if shift and file.is_file() else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its files cannot be read: {error}"
    diverged = summary.get("diverged", False)
    if metric not in summary and not diverged:
        return f"it has no {metric}; it has {', '.join(sorted(tag for tag in summary if '/' in tag))}"
    value = None if diverged else summary[metric]  # summary.json has null for what is no number
    alphas = {tag.partition("/")[2]: curve[max(curve)] for tag, curve in curves.items() if tag.startswith("alpha/")}
    finite = value is not None and math.isfinite(value)
    return Result(seed, summary, value if finite else None, curves, dict(sorted(alphas.items())), shifted)


def read_curves(file: Path) -> dict[str, Curve]:
    """`metrics.csv`; of several values at one step the last."""
    curves: dict[str, Curve] = {}
    with file.open(newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            curves.setdefault(row["tag"], {})[int(row["step"])] = float(row["value"])
    return curves


def band(curves: list[Curve]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps that all curves have, and there the mean, the least and the greatest of the finite values."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    rows = [(step, [curve[step] for curve in curves if math.isfinite(curve[step])]) for step in steps]
    rows = [(step, values) for step, values in rows if values]
    return (
        [step for step, _ in rows],
        [fmean(values) for _, values in rows],
        [min(values) for _, values in rows],
        [max(values) for _, values in rows],
    )


def thinned(curve: Curve, points: int = 60) -> Curve:
    """Means over so many equal stretches of steps, at the last step of each: losses of single batches are noisy."""
    steps = sorted(curve)
    if len(steps) <= points:
        return curve
    ends = [round((number + 1) * len(steps) / points) for number in range(points)]
    pieces = [steps[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return {piece[-1]: fmean(curve[step] for step in piece) for piece in pieces}
