"""Numbers of a benchmark in rows, for programs, and in tables, for people."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich.table import Table

from . import models, norms
from .report import Results
from .timing import Times

Row = dict[str, Any]
REFERENCE = "ln"  # what norms are compared with, where it takes part; else the first


def norm_rows(results: Results[norms.Place], itemsize: int) -> list[Row]:
    """One for every time that was measured: of a call, with its share of the copy's rate, and its memory.

    Args:
        itemsize: bytes of a number.
    """
    times = _measured(results.times)
    reference = _reference([place.norm for place in times if place.norm])
    rows = []
    for place, one in times.items():
        base = times.get(norms.Place(place.shape, place.step, reference, "ours"))
        memory = norms.Place(place.shape, "both", place.norm, place.how)
        tokens, width = place.shape
        tensors = norms.TENSORS[place.step] if place.norm else norms.COPIED
        size = tensors * tokens * width * itemsize
        copying = _copying(times, place.shape)
        row = {"tokens": tokens, "width": width, "pass": place.step, "norm": place.norm, "how": place.how}
        row |= _timing(one, base if place.norm else None, reference)
        row |= {"bytes": size, "bytes_per_second": size / one.median}
        row["percent_of_copy"] = 100 * tensors / norms.COPIED * copying / one.median if copying else None
        row |= {"saved_bytes": results.saved.get(memory), "peak_bytes": results.peak.get(memory)}
        rows.append(row)
    return rows


def model_rows(results: models.Results, samples: int) -> list[Row]:
    """One for every time that was measured: of a step of `samples`, with samples or tokens a second, and its memory."""
    times = _measured(results.times)
    reference = _reference([place.norm for place in times])
    rows = []
    for place, one in times.items():
        base = times.get(models.Place(place.step, reference, place.how))
        memory = models.Place("training", place.norm, place.how)
        row = {"step": place.step, "norm": place.norm, "how": place.how} | _timing(one, base, reference)
        row[f"{results.unit}_per_second"] = samples * results.units_per_sample / one.median
        rows.append(row | {"saved_bytes": results.saved.get(memory), "peak_bytes": results.peak.get(memory)})
    return rows


def norm_tables(rows: Sequence[Row], dtype: str, itemsize: int) -> list[Table]:
    """One for every shape, in which the passes stand side by side."""
    tables = []
    steps = list(dict.fromkeys(row["pass"] for row in rows))
    for tokens, width in dict.fromkeys(map(shape_of, rows)):
        here = [row for row in rows if shape_of(row) == (tokens, width)]
        copies = [row["bytes_per_second"] for row in here if not row["norm"]]
        title = f"{tokens}x{width} {dtype}"
        if copies:
            title += f": x is {_bytes(tokens * width * itemsize)}, copied at {median(copies) / 1e9:,.1f} GB/s"
        table = _table(title)
        for step in steps:
            _add_columns(table, step, "% copy", f"x {_ratio_name(rows)}")
        memory = _add_memory(table, rows)
        for norm, how in dict.fromkeys((row["norm"], row["how"]) for row in here if row["norm"]):
            found = {row["pass"]: row for row in here if (row["norm"], row["how"]) == (norm, how)}
            cells = [cell for step in steps for cell in _norm_cells(found.get(step))]
            some = next(iter(found.values()))
            cells += [_times_x(some[key], tokens * width * itemsize) for key in memory]
            table.add_row(norm, how, *cells, style="bold" if how == "ours" else "")
        tables.append(table)
    return tables


def model_table(rows: Sequence[Row], title: str) -> Table:
    (rate,) = {key for row in rows for key in row if key.endswith("_per_second")}
    steps = list(dict.fromkeys(row["step"] for row in rows))
    table = _table(title)
    for step in steps:
        _add_columns(table, step, f"x {_ratio_name(rows)}", f"{rate.removesuffix('_per_second')}/s")
    memory = _add_memory(table, rows)
    for norm, how in dict.fromkeys((row["norm"], row["how"]) for row in rows):
        found = {row["step"]: row for row in rows if (row["norm"], row["how"]) == (norm, how)}
        cells = [cell for step in steps for cell in _model_cells(found.get(step), rate)]
        some = next(iter(found.values()))
        table.add_row(norm, how, *cells, *(_bytes(some[key]) for key in memory))
    return table


def shape_of(row: Row) -> tuple[int, int]:
    return row["tokens"], row["width"]


def duration(seconds: float) -> str:
    """Three figures and a unit."""
    factor, unit = next(((f, u) for f, u in ((1, "s"), (1e3, "ms")) if seconds * f >= 1), (1e6, "us"))
    return f"{_short(seconds * factor)} {unit}"


def _copying(times: Mapping[norms.Place, Times], shape: tuple[int, int]) -> float | None:
    """Seconds of copying x, by the turns that it had among all passes."""
    all_of_them = Times()
    for place, one in times.items():
        if place.shape == shape and not place.norm:
            all_of_them.seconds += [seconds / one.calls for seconds in one.seconds]
    return all_of_them.median if all_of_them.seconds else None


def _timing(times: Times, base: Times | None, reference: str) -> Row:
    return {
        "seconds": times.median,
        "iqr": times.iqr,
        "repetitions": len(times.seconds),
        "launch_seconds": times.median_launching,
        "ratio": times.median / base.median if base else None,
        "ratio_to": reference if base else None,
    }


def _measured(times: Mapping[Any, Times]) -> dict[Any, Times]:
    return {place: one for place, one in times.items() if one.seconds}


def _reference(names: Sequence[str]) -> str:
    return REFERENCE if REFERENCE in names else next(iter(names), "")


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    for column in ("norm", "as"):
        table.add_column(column, no_wrap=True)
    return table


def _add_columns(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)


def _add_memory(table: Table, rows: Sequence[Row]) -> list[str]:
    """A column for each that was counted, whose keys it returns."""
    keys = [key for key in ("saved_bytes", "peak_bytes") if any(row[key] is not None for row in rows)]
    _add_columns(table, *(key.removesuffix("_bytes") for key in keys))
    return keys


def _norm_cells(row: Row | None) -> list[str]:
    return [_time(row), _number(row["percent_of_copy"], ".0f"), _number(row["ratio"], ".2f")] if row else ["", "", ""]


def _model_cells(row: Row | None, rate: str) -> list[str]:
    if row is None:
        return ["", "", ""]
    return [_time(row), _number(row["ratio"], ".3f"), f"{row[rate]:,.{0 if row[rate] >= 100 else 1}f}"]


def _time(row: Row) -> str:
    """Median and half of the spread between the quartiles; a star where the host takes longer to launch it."""
    number, unit = duration(row["seconds"]).split()
    spread = row["iqr"] / 2 * {"s": 1, "ms": 1e3, "us": 1e6}[unit]
    star = "*" if (row["launch_seconds"] or 0) > row["seconds"] else ""
    return f"{number} ± {_short(spread)} {unit}{star}"


def _short(value: float) -> str:
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _bytes(size: float | None) -> str:
    if size is None:
        return ""
    factor, unit = next(((2**e, u) for e, u in ((30, "GiB"), (20, "MiB"), (10, "KiB")) if size >= 2**e), (1, "B"))
    return f"{size / factor:.{0 if unit == 'B' else 2 if unit == 'GiB' else 1}f} {unit}"


def _times_x(size: int | None, x: int) -> str:
    return "" if size is None else f"{size / x:.2f} x"


def _ratio_name(rows: Sequence[Row]) -> str:
    return next((str(row["ratio_to"]) for row in rows if row["ratio_to"]), "")
