"""Measures a training step and a forward pass of whole models under each norm, on batches of noise.

A training step is what a device does in train.py from one batch to the next: forward, backward, the norm of all
gradients, AdamW, and the moving average where the recipe has one. Its learning rate is 0, so that every step does the
same work. Eager and compiled share one model, and so its memory.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ...config import compose, family_of, parse, to_argv
from ...config.errors import first_line, translate_errors
from ...models import get_family
from ...models.base import compile_parts, update_average
from ...models.optim import make_optimizer
from ...models.trained import set_precision
from ...train import build_module
from ..fit_keys import fit_keys
from .report import Benchmark, Row, common_rows
from .timing import Case, Timing, peak_bytes, saved_bytes, take_turns, wall_clock

STEPS = ("training", "inference")
FEWER_ON_CPU = 8  # times fewer samples
VARIANTS = 4  # graphs of a block: training, training with saved tensors noted, inference, and one to spare


def configs(argv: Sequence[str], norms: Sequence[str], device: torch.device) -> tuple[dict[str, DictConfig], list[str]]:
    """Returns the config of each norm, and a note for each key that only some of the norms have.

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
    cfg = compose(to_argv(fitting[0]), check=False)  # the task's own data may not suit this model
    own = compose([f"task={cfg.task.name}"]).defaults.model
    if cfg.defaults.model != own and not {"data", "experiment"} & set(picks):
        family = get_family(cfg.task.name)
        samples = family.example_samples if gpu else max(1, family.example_samples // FEWER_ON_CPU)
        sizes = dict(size.split("=", 1) for size in (*family.example_data, f"data.batch_size={samples}"))
        fitting = [{**sizes, **one} for one in fitting]
    return {norm: compose(to_argv(one)) for norm, one in zip(norms, fitting, strict=True)}, notes


def samples_of(cfg: DictConfig) -> int:
    """Returns the samples of a step on one device."""
    return int(cfg.data.batch_size or cfg.data.total_batch_size)


class Runner:
    """A model under one norm, eager and compiled.

    Args:
        cfg: composed with this norm.
    """

    def __init__(self, cfg: DictConfig, device: torch.device) -> None:
        with translate_errors("model"):
            self.module = build_module(cfg, device).to(device)
        vars(self.module)["log"] = lambda *_, **__: None  # Lightning's wants a trainer
        data = SimpleNamespace(training_indices=lambda number, _: [(0, index) for index in range(number)])
        trainer = SimpleNamespace(datamodule=data, distributed_sampler_kwargs=None)
        vars(self.module)["_trainer"] = trainer  # says which samples a batch has
        self.model = self.module.model
        dtype = set_precision(self.module, cfg.trainer.precision)
        self.autocast = partial(torch.autocast, device.type, dtype, enabled=dtype is not None)
        self.optimizer = make_optimizer(self.module.model, self.module.optim, fused=device.type in ("cpu", "cuda"))
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        torch.manual_seed(cfg.seed)
        kept = next(self.model.parameters()).dtype
        batch = get_family(cfg.task.name).example_batch(cfg, samples_of(cfg))
        self.batch = tuple(one.to(device, kept if one.is_floating_point() else None) for one in batch)

    def case(self, timing: Timing, calls: int = 1) -> Case:
        """Returns a case for `timing.step` as `timing.how`."""
        trains = timing.step == "training"
        call = partial(self._run, self._train if trains else self._infer, timing.how)
        return Case(timing, call, partial(self.model.train, trains), calls)

    def saved(self, how: str) -> int:
        self.model.train()
        return saved_bytes(partial(self._run, self._loss, how), self.model.parameters())

    def compile(self) -> None:
        parts = self.module.compiled_parts(self.model)
        limits = torch._dynamo.config  # for a block's code, which all models share
        limits.recompile_limit += VARIANTS * len(parts)
        limits.accumulated_recompile_limit += VARIANTS * len(parts)
        compile_parts(parts)

    def _run(self, function: Callable[[], object], how: str, _: object = None) -> object:
        with torch.compiler.set_stance("force_eager" if how == "eager" else "default"), self.autocast():
            return function()

    def _loss(self) -> Tensor:
        loss = self.module.training_step(self.batch, 0)
        assert isinstance(loss, Tensor)
        return loss

    def _train(self) -> None:
        loss = self._loss()
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward()
            self.module.configure_gradient_clipping(self.optimizer)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.module.ema is not None:
                update_average(self.module.ema, self.model, self.module.ema_decay)

    @torch.no_grad()
    def _infer(self) -> None:
        self.model(*self.module.model_inputs(self.batch))


class ModelBenchmark(Benchmark):
    """A model under each norm, eager and compiled.

    Args:
        argv: composes the config, without norm=.
    """

    def __init__(self, options: Mapping[str, Any], argv: Sequence[str], device: torch.device) -> None:
        self.configs, dropped = configs(argv, options["norm"], device)
        cfg = next(iter(self.configs.values()))
        self.name, self.samples = cfg.defaults.model, samples_of(cfg)
        super().__init__({**options, "config": list(argv), "samples": self.samples}, device)
        self.title = f"{self.name}, {self.samples} samples a step, {cfg.trainer.precision}"
        peak = "; peak: held at most, with weights and optimiser" if device.type == "cuda" else ""
        self.notes = [*dropped, f"saved: kept for backward by a training step, beside the parameters{peak}"]
        self.hows = ["eager", "compiled"] if options["compile"] else ["eager"]
        self.total = len(self.configs) * len(self.hows) * len(STEPS)
        self.rate, self.units_per_sample = "samples_per_second", 1

    def measure(self) -> None:
        """Skips what the compiler cannot do or memory cannot hold."""
        cases: list[Case] = []
        limits = torch._dynamo.config
        kept = {key: getattr(limits, key) for key in ("recompile_limit", "accumulated_recompile_limit")}
        # A model of which some blocks stay eager is not a compiled one: to give up is to fail.
        with limits.patch({**kept, "fail_on_recompile_limit_hit": True}):
            for norm, cfg in self.configs.items():
                runner = None  # frees the one before, where it is not kept
                before = torch.cuda.memory_allocated()  # 0 on a CPU
                for how in self.hows:
                    try:
                        runner = runner or Runner(cfg, self.device)
                        cases += self._warm_cases(runner, norm, how, before)
                    except Exception as error:
                        if how == "eager" and not isinstance(error, torch.OutOfMemoryError):
                            raise
                        self.skipped[f"{norm} {how}"] = first_line(error)
                if runner is not None:
                    self.rate = f"{runner.module.unit}_per_second"
                    self.units_per_sample = runner.module.units_per_sample
            for step in STEPS:
                here = [case for case in cases if case.timing.step == step]
                take_turns(here, wall_clock, self.options["seconds"], self.timings, self.advance)

    def _warm_cases(self, runner: Runner, norm: str, how: str, before: int) -> list[Case]:
        """Runs every step twice, which compiles it, measures training's memory, and returns a case for each step."""
        if how == "compiled":
            runner.compile()
        calls = 10 if self.device.type == "cuda" else 1  # the host may then run ahead, as it does in training
        cases = [runner.case(Timing("", step, norm, how), calls) for step in STEPS]
        for case in cases:
            case.once()
            case.once()
        saved, peak = runner.saved(how), peak_bytes(cases[0].once, self.device, before)
        for case in cases:
            case.timing.saved, case.timing.peak = saved, peak
        return cases

    def rows(self) -> list[Row]:
        rate = self.samples * self.units_per_sample
        return [row | {self.rate: rate / row["seconds"]} for row in common_rows(self.timings)]
