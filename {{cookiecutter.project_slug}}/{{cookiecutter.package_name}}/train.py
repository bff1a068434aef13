"""Training and evaluation from start to end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from shlex import quote
from typing import Any

import lightning as L
import torch
from lightning.pytorch.profilers import AdvancedProfiler, SimpleProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from .callbacks.checkpoint import AllCheckpoints, AtomicCheckpointIO, BestCheckpoint, LastCheckpoint, TopCheckpoints
from .callbacks.divergence import Divergence
from .callbacks.hparams import HParams
from .callbacks.norm_figures import NormFigures, select_layers
from .callbacks.norm_monitor import NormMonitor, named_norms
from .callbacks.progress import ProgressBar, ProgressLines
from .callbacks.record import ConfigRecord
from .callbacks.resume import StepClock
from .callbacks.seeding import StepSeeding
from .callbacks.throughput import Throughput
from .cli import print_summary, print_tree, quiet
from .config import leaves, plain
from .config.constraints import check_constraints
from .config.entries import entry_errors, instantiate
from .config.errors import Diverged, UsageError, require, translate_errors
from .data import get_kind
from .data.base import DataModule
from .distributed import (
    EqualForwards,
    check_shardable,
    device_list,
    memory_bytes,
    process_count,
    sharded_strategy,
    split_batch,
    this_device,
)
from .loggers import build_loggers, read_metrics
from .models import get_family
from .models.base import BaseModule
from .models.build import build_model
from .models.optim import lr_factor, make_optimizer
from .models.pretrained import initialise_, start_alphas_
from .runs import Run, best_checkpoint, load_checkpoint, open_run, peak_memory_bytes, write_summary

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}  # Lightning's names


def train(cfg: DictConfig) -> tuple[Path, dict[str, Any]]:
    """Fits, tests the best checkpoint, and writes and prints the summary.

    Returns:
        The run directory, and the metrics and costs that its `summary.json` holds.

    Raises:
        UsageError: the config asks for something that cannot be; nothing is left behind.
    """
    quiet()
    with translate_errors("data"):
        data = build_data(cfg)
        data.prepare_data()  # a download that fails does so before anything is made
        data.check_trainable(cfg.data.total_batch_size)
    with translate_errors("trainer"):
        steps = count_steps(cfg, data)
        data.steps_per_epoch, data.repeats = steps.per_epoch, bool(cfg.trainer.get("overfit_batches"))
    with translate_errors("schedule"):
        lr_factor(steps.total, **plain(cfg.schedule))
    with translate_errors("model"):
        check_memory(cfg)
        module = build_module(cfg, training_device(cfg))
    with translate_errors(f"monitor.curves={cfg.monitor.curves}"):
        select_layers(cfg.monitor.curves, named_norms(module.model))
    with entry_errors("optim"):
        make_optimizer(module.model, plain(cfg.optim), fused=False)
    own = [instantiate(f"callbacks.{name}", entry, L.Callback) for name, entry in plain(cfg.callbacks).items()]
    with open_run(cfg, steps.total) as run:
        if cfg.init.weights and run.checkpoint is None:
            initialise_(module, cfg, data)
        elif cfg.init.alpha0 == "auto" and run.checkpoint is None:
            with translate_errors("norm.alpha0=auto"):
                start_alphas_(module, cfg, data)
        throughput = Throughput(
            cfg.data.total_batch_size, module.unit, module.units_per_sample, partial(build_model, cfg, "meta")
        )
        resumed_step = None if run.checkpoint is None else load_checkpoint(run.checkpoint)["global_step"]
        trainer = build_trainer(
            cfg,
            steps,
            default_root_dir=run.path,
            logger=build_loggers(run.path, resumed_step, plain(cfg.logger)),
            enable_progress_bar=sys.stdout.isatty(),
            callbacks=build_callbacks(cfg, run, steps, throughput, own),
        )
        if trainer.is_global_zero:
            print_tree(cfg)
            for note in data.notes:
                print(note)
        try:
            with exit_status_of_signals(trainer, f"python train.py resume={quote(str(run.path))} continues"):
                trainer.fit(module, datamodule=data, ckpt_path=run.checkpoint, weights_only=True)
                # read before the test, in which the callbacks load their states from the best checkpoint
                values = summarise(trainer, module, steps, throughput, run)
                if trainer.global_step < steps.total and trainer.is_global_zero:
                    print(f"training ended early, at step {trainer.global_step} of {steps.total}")
                best = best_checkpoint(run.path)
                trainer.test(module, datamodule=data, ckpt_path=best, verbose=False, weights_only=True)
        except Diverged:
            if trainer.is_global_zero:
                write_summary(run, cfg, summarise(trainer, module, steps, throughput, run) | {"diverged": True})
            raise
        values |= metrics_of(trainer)
        if trainer.is_global_zero:
            write_summary(run, cfg, values)
            print_summary(run.path, values)
        return run.path, values


def evaluate(cfg: DictConfig, checkpoint: Path, split: str, out: Path | None = None) -> dict[str, float]:
    """Returns and prints the metrics of a checkpoint on `split`, "val" or "test": those of training, and a report's.

    Args:
        out: a folder for the report's files; None writes none.

    Raises:
        UsageError: no such split, data of other classes or sizes, or weights that do not fit the model.
    """
    data, module = load_trained(cfg, checkpoint, split)
    module.collect_report()
    progress = [ProgressBar(refresh_rate=10)] if sys.stdout.isatty() else []
    trainer = build_trainer(
        cfg, logger=False, enable_checkpointing=False, callbacks=progress, enable_progress_bar=bool(progress)
    )
    with exit_status_of_signals(trainer, "the same command measures it again"):
        metrics = measure(trainer, module, data, split)
    if trainer.is_global_zero:
        for tag, value in metrics.items():
            print(f"{tag} {value:.6f}")
        if out is not None and (files := module.write_report(out, split, data.class_names)):
            print(f"written: {', '.join(map(str, files))}")
    return metrics


def load_trained(cfg: DictConfig, checkpoint: Path, split: str) -> tuple[DataModule, BaseModule]:
    """Returns the data of `cfg`, and the LightningModule with a checkpoint's weights.

    Raises:
        UsageError: as `evaluate` says.
    """
    require(split in ("val", "test"), f"split={split}: choose val or test")
    quiet()
    saved = load_checkpoint(checkpoint, "cpu")
    trained_on = saved["config"]["data"]
    kind, was = cfg.data.module, trained_on["module"]
    require(kind == was, f"data={cfg.defaults.data}: the model was trained on {was}, and these are {kind}")
    data = build_data(cfg)
    for key, found in data.found.items():
        was = trained_on.get(key, found)
        require(found == was, f"data: the model was trained on {key}={was}, and these have {key}={found}")
    with translate_errors("model"):
        module = build_module(cfg)
    with translate_errors("data"):
        data.prepare_data()
        if (facts := saved.get(type(data).__qualname__)) is not None:
            data.use_classes(facts["class_names"])
    try:
        module.load_state_dict(saved["state_dict"])
    except RuntimeError as error:
        raise UsageError(f"{checkpoint}: its weights do not fit this model; was the code changed?") from error
    return data, module


def measure(trainer: L.Trainer, module: BaseModule, data: DataModule, split: str) -> dict[str, float]:
    """Returns the metrics of `module` on a split of `data`, by their tags.

    Raises:
        UsageError: the split is empty.
    """
    run = trainer.validate if split == "val" else trainer.test
    metrics: dict[str, float] = dict(*run(module, datamodule=data, verbose=False))
    require(bool(metrics), f"split={split}: the data have no such samples")
    return metrics


@dataclass(frozen=True)
class Steps:
    """Optimiser steps of an epoch, of the whole training, and from one validation to the next."""

    per_epoch: int
    total: int
    validation: int


def count_steps(cfg: DictConfig, data: DataModule) -> Steps:
    """Returns section `trainer`'s numbers of epochs and batches as steps; samples that fill no step do not count.

    Raises:
        ValueError: less than a step, or a part of one.
    """
    options, batch, processes = cfg.trainer, cfg.data.total_batch_size, process_count(cfg.trainer)
    _, accumulate = split_batch(batch, cfg.data.batch_size, processes)
    per_epoch = data.sizes["train"] // batch
    key = "overfit_batches" if options.get("overfit_batches") else "limit_train_batches"
    limit = options[key]
    if isinstance(limit, float):
        per_epoch = int(per_epoch * limit)
    elif limit % accumulate:
        raise ValueError(f"{key}={limit}: gradients accumulate over {accumulate}; choose a multiple")
    else:
        per_epoch = min(per_epoch, limit // accumulate)
    if per_epoch < 1:
        raise ValueError(f"{key}={limit}: that is less than one step; 1.0 takes all")
    for split in ("val", "test"):  # Lightning would look at the test's share when training is over
        share, batches = options[f"limit_{split}_batches"], ceil(data.sizes[split] // processes / data.batch_size)
        if isinstance(share, float) and share and batches and int(share * batches) < 1:
            raise ValueError(f"limit_{split}_batches={share}: that is less than one batch; 1.0 takes all")
    if fast := int(options.get("fast_dev_run") or 0):
        return Steps(per_epoch, fast, fast)
    totals = [per_epoch * options.max_epochs, options.max_steps]
    validation = options.val_every_n_steps or per_epoch * options.check_val_every_n_epoch
    return Steps(per_epoch, min(total for total in totals if total > 0), validation)


def summarise(trainer: L.Trainer, module: BaseModule, steps: Steps, throughput: Throughput, run: Run) -> dict[str, Any]:
    """Returns the last metrics, and the cost of the training."""
    file = run.path / "metrics.csv"  # a run that resumes in its test has measured nothing itself
    logged = read_metrics(file) if trainer.is_global_zero and file.exists() else {}
    last = {tag: values[max(values)] for tag, values in logged.items() if tag.startswith(("train/", "val/"))}
    return (
        last
        | metrics_of(trainer)
        | {
            "steps": trainer.global_step,
            "epochs": round(trainer.global_step / steps.per_epoch, 3),
            "seconds": throughput.seconds,
            **throughput.overall(),
            "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
            "peak_memory_bytes": peak_memory_bytes(),
        }
    )


def metrics_of(trainer: L.Trainer) -> dict[str, Any]:
    return {tag: value.item() for tag, value in trainer.callback_metrics.items() if "/" in tag}


@contextmanager
def exit_status_of_signals(trainer: L.Trainer, hint: str) -> Iterator[None]:
    """Prints how to continue if the user stops the trainer, whose answer is SystemExit, and exits with status 130."""
    try:
        yield
    except SystemExit:
        if trainer.is_global_zero:
            print(f"stopped at step {trainer.global_step}; {hint}" if trainer.global_step else "stopped", flush=True)
        raise SystemExit(130) from None


def build_data(cfg: DictConfig) -> DataModule:
    """Returns the data module, with its share of the total batch, and writes facts about the data into `cfg`.

    Raises:
        UsageError: data that are not there, a batch that does not divide, or facts that a constraint excludes.
    """
    settings = plain(cfg.data)
    total, per_device = settings.pop("total_batch_size"), settings["batch_size"]
    with translate_errors("trainer"):
        processes = process_count(cfg.trainer)
    with translate_errors("data"):
        settings["batch_size"], _ = split_batch(total, per_device, processes)
        data = get_kind(settings.pop("module")).build(seed=cfg.seed, **settings)
    cfg.data.update(data.found)
    check_constraints(dict(leaves(plain(cfg))))
    return data


def build_module(cfg: DictConfig, device: torch.device | str | None = None) -> BaseModule:
    """Returns the LightningModule with its model, which is built on `device`."""
    model = build_model(cfg, device)
    if cfg.trainer.strategy == "fsdp":
        check_shardable(model, cfg.trainer.precision)
    return get_family(cfg.task.name).build_module(
        model,
        cfg,
        optim=plain(cfg.optim),
        schedule=plain(cfg.schedule),
        ema_decay=cfg.ema.decay,
        compile=cfg.compile,
        seed=cfg.seed,
    )


def check_memory(cfg: DictConfig) -> None:
    """Raises ValueError if weights, gradients and moving average alone are more than a device can hold."""
    size = sum(parameter.numel() for parameter in build_model(cfg, "meta").parameters())
    copies, shares = 2 + bool(cfg.ema.decay), process_count(cfg.trainer) if cfg.trainer.strategy == "fsdp" else 1
    width = 2 if cfg.trainer.precision in ("bf16-true", "16-true") else 4  # bytes
    needed, there = width * copies * size / shares, memory_bytes(this_device(cfg.trainer))
    if there and needed > there:
        raise ValueError(
            f"weights and gradients of {size:,} parameters take {needed / 2**30:,.0f} GiB, and the device has "
            f"{there / 2**30:,.0f}; choose a smaller model, or more devices under FSDP"
        )


def training_device(cfg: DictConfig) -> str | None:
    """Returns "meta" if FSDP can draw the weights in shards; else None, for main memory."""
    sharded = cfg.trainer.strategy == "fsdp" and get_family(cfg.task.name).init_on_device
    return "meta" if sharded and not cfg.init.weights and cfg.init.alpha0 == "given" else None


def build_callbacks(
    cfg: DictConfig, run: Run, steps: Steps, throughput: Throughput, own: list[L.Callback]
) -> list[L.Callback]:
    """Returns all callbacks; Lightning calls those that save checkpoints after the others."""
    terminal = sys.stdout.isatty()
    monitor = NormMonitor(cfg.monitor.every_n_steps, cfg.monitor.samples)
    saving = cfg.checkpoint
    top = saving.save_top_k > 1 and not saving.keep_all
    return [
        StepSeeding(cfg.seed),
        monitor,
        NormFigures(monitor, cfg.monitor.curves, run.path),
        HParams(cfg),
        throughput,
        Divergence(cfg.trainer.log_every_n_steps),
        *own,
        BestCheckpoint(run.checkpoints, cfg.task.monitor, cfg.task.monitor_mode),
        *([TopCheckpoints(run.checkpoints, cfg.task.monitor, cfg.task.monitor_mode, saving.save_top_k)] if top else []),
        *([AllCheckpoints(run.checkpoints, saving.every_n_steps)] if saving.keep_all else []),
        LastCheckpoint(run.checkpoints, saving.every_n_steps),
        ConfigRecord(plain(cfg), run.path),
        ProgressBar(refresh_rate=10) if terminal else ProgressLines(throughput, steps.per_epoch),
        StepClock(steps.validation),
    ]


def build_trainer(cfg: DictConfig, steps: Steps | None = None, **settings: Any) -> L.Trainer:
    """Returns Lightning's Trainer by section `trainer`; data modules shard and shuffle themselves.

    Args:
        steps: of the training; None for an evaluation.

    Raises:
        UsageError: Lightning refuses a value of the section.
    """
    options = plain(cfg.trainer) | {"devices": device_list(cfg.trainer.devices)}
    if fast := int(options.pop("fast_dev_run", 0) or 0):  # Lightning's own saves and logs nothing
        options |= {"limit_val_batches": fast, "limit_test_batches": fast}
    options.pop("overfit_batches", None)  # the data module repeats them
    if options.get("profiler") in PROFILERS and "default_root_dir" in settings:
        options["profiler"] = PROFILERS[options["profiler"]](dirpath=settings["default_root_dir"], filename="profile")
    _, accumulate = split_batch(cfg.data.total_batch_size, cfg.data.batch_size, process_count(cfg.trainer))
    for counted in ("max_epochs", "max_steps", "check_val_every_n_epoch", "val_every_n_steps", "limit_train_batches"):
        del options[counted]  # `steps` has them
    if steps is not None:
        options |= {"max_epochs": -1, "max_steps": steps.total}
        options |= {"val_check_interval": steps.validation * accumulate, "check_val_every_n_epoch": None}
    if cfg.trainer.strategy == "fsdp":
        options["strategy"] = sharded_strategy(process_count(cfg.trainer))
        settings["callbacks"] = [*settings.get("callbacks", []), EqualForwards()]
    with translate_errors("trainer", AttributeError, ImportError, MisconfigurationException, RuntimeError):
        return L.Trainer(
            accumulate_grad_batches=accumulate,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            plugins=[AtomicCheckpointIO()],
            **{**settings, **options},
        )
