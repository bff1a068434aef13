"""From the choices to the results: what benchmark.py does once they are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from ... import norms as registry
from ...cli import progress
from ...errors import require
from ...models.build import find_device
from ...runs import make_numbered
from . import norms, plots, tables
from .choices import DTYPES, PASSES, Choices, chosen, read_shapes
from .report import Results, conditions, write
from .rivals import RIVALS
from .tables import Row
from .timing import CudaClock, wall_clock

ON_GPU = "8192x4096,1024x4096,50432x768,16384x1024,65536x384,200000x768,2048x64"
ON_CPU = "2048x768,1024x4096"
TIME = "time: median ± half the distance of the quartiles"


@dataclass(frozen=True)
class Study:
    """A benchmark that is ready to begin.

    Args:
        stem: of its folder's name.
        total: numbers that it is to measure.
        settings: what they depend on, besides the machine.
        measure: is told how to tell of its progress.
        skipped: what does not take part, and why; grows while it measures.
    """

    stem: str
    total: int
    settings: Mapping[str, Any]
    measure: Callable[[Callable[[float], object]], None]
    rows: Callable[[], list[Row]]
    tables: Callable[[list[Row]], list[Table]]
    plot: Callable[[list[Row], Path], None]
    notes: list[str]
    skipped: Mapping[str, str]


def benchmark(choices: Choices) -> Path:
    """Measures, prints and writes; returns the folder with `table.txt`, `results.json` and `plot.png`.

    Raises:
        UsageError: an option that cannot be, or nothing that can be measured.
        KeyboardInterrupt: once what was measured until then is printed and written.
    """
    device = find_device(choices.options["device"])
    names = chosen("norm", choices.options["norm"], registry.names())
    if threads := choices.options["threads"]:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # events, and the launches of some libraries, are of the current one
    where = conditions(device)
    study = (_models if choices.config else _norms)(choices, names, device, where["machine"])
    folder = make_numbered(Path(choices.options["out"]), study.stem, "out")
    finished = False
    try:
        with progress("numbers") as bar:
            task = bar.add_task("", total=study.total)
            study.measure(lambda share: bar.advance(task, share))
            bar.update(task, completed=study.total)
        finished = True
    finally:
        _report(study, folder, where, finished)
    return folder


def _report(study: Study, folder: Path, where: Mapping[str, Any], finished: bool) -> None:
    rows = study.rows()
    if not rows:
        folder.rmdir()
        why = "; ".join(f"{what}: {why}" for what, why in study.skipped.items())
        require(not finished, f"nothing could be measured: {why}")
        return
    notes = [] if finished else ["stopped on the way: this is what was measured until then"]
    notes += [*study.notes, *(f"skipped: {what}: {why}" for what, why in study.skipped.items())]
    content = {"benchmark": study.stem, "finished": finished, "settings": study.settings, **where}
    write(folder, {**content, "rows": rows, "skipped": study.skipped}, study.tables(rows), notes)
    study.plot(rows, folder / "plot.png")


def _norms(choices: Choices, names: list[str], device: torch.device, machine: Mapping[str, Any]) -> Study:
    options, gpu, results = choices.options, device.type == "cuda", Results[norms.Place]()
    rivals = [] if options["rivals"] == "none" else chosen("rivals", options["rivals"], list(RIVALS))
    results.skipped |= {rival: reason for rival in rivals if (reason := RIVALS[rival].missing(device))}
    dtype = options["dtype"] or ("bf16" if gpu else "fp32")
    plan = norms.Plan(
        norms=norms.worth_measuring(names, results.skipped),
        shapes=read_shapes(options["shapes"] or (ON_GPU if gpu else ON_CPU)),
        steps=chosen("pass", options["pass"], PASSES),
        dtype=getattr(torch, DTYPES[dtype]),
        device=device,
        rivals=[rival for rival in rivals if rival not in results.skipped],
        compiles=options["compile"],
        seconds=options["seconds"],
    )
    clock = CudaClock(device) if gpu else wall_clock
    size = plan.dtype.itemsize
    of_copy = "% copy: the rate at which a pass moves the bytes that it has to, of the rate at which x is copied"
    saved = "saved: kept for backward, in sizes of x" + ("; peak: beyond x and dy" if gpu else "")
    return Study(
        stem="norms",
        total=len(plan),
        settings={**options, "dtype": dtype, "device": str(device)},
        measure=lambda advance: norms.measure(plan, clock, results, advance),
        rows=lambda: tables.norm_rows(results, size),
        tables=lambda rows: tables.norm_tables(rows, dtype, size),
        plot=lambda rows, path: plots.plot_norms(rows, f"Norms in {dtype} on {_name(machine)}", path),
        notes=[f"{TIME}; {of_copy}", saved, *(["*: the host takes longer to launch it than this"] if gpu else [])],
        skipped=results.skipped,
    )


def _models(choices: Choices, names: list[str], device: torch.device, machine: Mapping[str, Any]) -> Study:
    from . import models  # lightning takes seconds to import, which a mistyped key should not cost

    options, results = choices.options, models.Results()
    configs, dropped = models.configs(choices.config, names, device)
    cfg = next(iter(configs.values()))
    samples, model, precision = models.samples_of(cfg), cfg.defaults.model, cfg.trainer.precision
    title = f"{model}, {samples} samples a step, {precision}"
    hows = 2 if options["compile"] else 1
    saved = "saved: kept for backward by a training step, beside the parameters"
    saved += "; peak: held at most, with weights and optimiser" if device.type == "cuda" else ""
    return Study(
        stem=model,
        total=len(configs) * hows * len(models.STEPS),
        settings={**options, "device": str(device), "config": list(choices.config), "samples": samples},
        measure=lambda advance: models.measure(
            configs, device, options["compile"], options["seconds"], results, advance
        ),
        rows=lambda: tables.model_rows(results, samples),
        tables=lambda rows: [tables.model_table(rows, title)],
        plot=lambda rows, path: plots.plot_models(rows, f"{title}, on {_name(machine)}", path),
        notes=[*dropped, TIME, saved],
        skipped=results.skipped,
    )


def _name(machine: Mapping[str, Any]) -> str:
    if machine["cuda"]:
        return str(machine["device"])
    threads = machine["threads"]
    return f"{threads} thread{'s' if threads > 1 else ''} of {machine['cpu']}"
