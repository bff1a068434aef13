"""Whole models: what a training step and a forward pass take under each norm, on batches of noise.

A training step is what a device does in train.py from one batch to the next: forward, backward, the norm of all
gradients, AdamW, and the moving average where the recipe has one. Its learning rate is 0: then the weights stay, and
every step does the same work. Eager and compiled are one net, so memory holds that of each norm once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ...config import compose, family_of, fit_keys, parse, to_argv
from ...models import get_family
from ...models.base import compile_parts, update_average
from ...models.build import set_precision
from ...train import build_module
from . import report
from .memory import peak_bytes, saved_bytes
from .timing import Case, take_turns, wall_clock

STEPS = ("training", "inference")
FEWER_ON_CPU = 8  # times
VARIANTS = 4  # of a block to compile: for training, with its saved tensors noted, for inference, and one to spare


@dataclass(frozen=True)
class Place:
    """Where a number stands; `how` is eager or compiled."""

    step: str
    norm: str
    how: str


@dataclass
class Results(report.Results[Place]):
    """Memory is that of a training step, its peak with weights and all.

    Args:
        unit: what throughput counts, samples or tokens.
    """

    unit: str = "samples"
    units_per_sample: int = 1


def configs(argv: Sequence[str], norms: Sequence[str], device: torch.device) -> tuple[dict[str, DictConfig], list[str]]:
    """The config of each norm, and a note for each key that some norms have and others are measured without.

    Where no data are named, a model other than the task's own gets sizes that suit it.

    Raises:
        UsageError: as config.compose.
    """
    picks, _ = parse(list(argv))
    gpu = device.type == "cuda"
    first = [f"trainer={'gpu' if gpu else 'cpu'}"]
    if "experiment" not in picks and (task := family_of(picks.get("model", ""))):
        first.append(f"task={task}")
    typed = [dict(argument.split("=", 1) for argument in [*first, *argv, f"norm={norm}"]) for norm in norms]
    fitting, notes = fit_keys(typed)
    cfg = compose(to_argv(fitting[0]))
    own = compose([f"task={cfg.task.name}"]).defaults.model
    if cfg.defaults.model != own and not {"data", "experiment"} & set(picks):
        family = get_family(cfg.task.name)
        suits = family.example_samples
        samples = suits if gpu else max(1, suits // FEWER_ON_CPU)
        sizes = dict(size.split("=", 1) for size in (*family.example_data, f"data.batch_size={samples}"))
        fitting = [{**sizes, **one} for one in fitting]
    return {norm: compose(to_argv(one)) for norm, one in zip(norms, fitting, strict=True)}, notes


def samples_of(cfg: DictConfig) -> int:
    """In a step, on a device."""
    return int(cfg.data.batch_size or cfg.data.total_batch_size)


class Runner:
    """A net under one norm, eager and compiled.

    Args:
        cfg: composed with this norm.
    """

    def __init__(self, cfg: DictConfig, device: torch.device) -> None:
        self.task = build_module(cfg, device).to(device)
        self.task.log = _nothing  # type: ignore[method-assign]
        dtype = set_precision(self.task, cfg.trainer.precision)
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        if dtype is not None:
            self.autocast = partial(torch.autocast, device.type, dtype)
        self.optimizer = self.task.make_optimizer(fused=device.type in ("cpu", "cuda"))
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        torch.manual_seed(cfg.seed)
        kept = next(self.task.model.parameters()).dtype
        batch = get_family(cfg.task.name).example_batch(cfg, samples_of(cfg))
        self.batch = [one.to(device, kept if one.is_floating_point() else None) for one in batch]

    def case(self, step: str, how: str, calls: int = 1) -> Case:
        trains = step == "training"
        call = partial(self._run, self._train if trains else self._infer, how)
        return Case(call, partial(self.task.model.train, trains), calls)

    def saved(self, how: str) -> int:
        self.task.model.train()
        return saved_bytes(partial(self._run, self._loss, how), self.task.model.parameters())

    def compile(self) -> None:
        parts = self.task.compiled_parts(self.task.model)
        limits = torch._dynamo.config  # of a block's code, which all nets share
        limits.recompile_limit += VARIANTS * len(parts)
        limits.accumulated_recompile_limit += VARIANTS * len(parts)
        compile_parts(parts)

    def _run(self, what: Callable[[], object], how: str, _: object = None) -> object:
        with torch.compiler.set_stance("force_eager" if how == "eager" else "default"), self.autocast():
            return what()

    def _loss(self) -> Tensor:
        loss = self.task.training_step(tuple(self.batch), 0)
        assert isinstance(loss, Tensor)
        return loss

    def _train(self) -> None:
        loss = self._loss()
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward()
            self.task.configure_gradient_clipping(self.optimizer)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.task.ema is not None:
                update_average(self.task.ema, self.task.model, self.task.ema_decay)

    @torch.no_grad()
    def _infer(self) -> None:
        self.task.model(*self.task.model_inputs(tuple(self.batch)))


def measure(
    configs: dict[str, DictConfig],
    device: torch.device,
    compiles: bool,
    seconds: float,
    results: Results,
    advance: Callable[[float], object],
) -> None:
    """Fills `results`. What the compiler cannot do, or memory cannot hold, is skipped.

    Args:
        advance: told how many numbers are done.
    """
    with _no_giving_up():
        runners = _runners(configs, device, compiles, results, advance)
        for step in STEPS:
            calls = 10 if device.type == "cuda" else 1  # the host may then run ahead, as it does in training
            cases = {Place(step, norm, how): one.case(step, how, calls) for (norm, how), one in runners.items()}
            take_turns(cases, wall_clock, seconds, results.times, advance)


@contextmanager
def _no_giving_up() -> Iterator[None]:
    """A net that is eager in part is none of the compiled ones: for torch to give up is to fail."""
    limits = torch._dynamo.config
    kept = {key: getattr(limits, key) for key in ("recompile_limit", "accumulated_recompile_limit")}
    with limits.patch({**kept, "fail_on_recompile_limit_hit": True}):
        yield


def _runners(
    configs: dict[str, DictConfig],
    device: torch.device,
    compiles: bool,
    results: Results,
    advance: Callable[[float], object],
) -> dict[tuple[str, str], Runner]:
    """Those that work, by norm and how."""
    runners: dict[tuple[str, str], Runner] = {}
    for norm, cfg in configs.items():
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        runner: Runner | None = None  # gives back the memory of the one before, if that is not kept
        try:
            runner = Runner(cfg, device)
        except torch.OutOfMemoryError as error:
            results.skip(norm, error)
            advance((2 if compiles else 1) * len(STEPS))
            continue
        results.unit, results.units_per_sample = runner.task.unit, runner.task.units_per_sample
        for how in ("eager", "compiled") if compiles else ("eager",):
            if _works(runner, norm, how, device, before, results):
                runners[norm, how] = runner
            else:
                advance(len(STEPS))
    return runners


def _works(runner: Runner, norm: str, how: str, device: torch.device, before: int, results: Results) -> bool:
    """Runs every step twice, which compiles it, and notes what memory training takes."""
    place = Place("training", norm, how)
    try:
        if how == "compiled":
            runner.compile()
        for step in STEPS:
            case = runner.case(step, how)
            for _ in range(2):
                case.call(case.prepare())
        results.saved[place] = runner.saved(how)
    except Exception as error:
        if how == "eager" and not isinstance(error, torch.OutOfMemoryError):
            raise
        results.skip(f"{norm} {how}", error)
        return False
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device) - before
        case = runner.case("training", how)
        case.prepare()
        peak = peak_bytes(lambda: case.call(None), device)
        results.peak[place] = held + (peak or 0)
    return True


def _nothing(*_: object, **__: object) -> None:
    """Instead of self.log, which wants a trainer."""
