"""Training and evaluation from start to end."""

import sys
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from .callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from .callbacks.divergence import Divergence
from .callbacks.hparams import HParams
from .callbacks.norm_figures import NormFigures, select_layers
from .callbacks.norm_monitor import NormMonitor, named_norms
from .callbacks.progress import ProgressBar, ProgressLines
from .callbacks.record import ConfigRecord
from .callbacks.resume import ExactResume
from .callbacks.seeding import StepSeeding
from .callbacks.throughput import Throughput
from .callbacks.validation import FinalValidation
from .cli import print_summary, print_tree, quiet
from .config import plain
from .data import get_kind
from .data.base import DataModule
from .distributed import EqualForwards, ShardedStrategy, check_shardable, device_list, process_count, split_batch
from .errors import Diverged, UsageError, require, translate_errors
from .loggers import build_loggers
from .models import get_family
from .models.base import BaseModule
from .models.build import build_model
from .models.pretrained import initialise_
from .runs import Run, best_checkpoint, load_checkpoint, open_run, peak_memory_bytes, write_summary


def train(cfg: DictConfig) -> tuple[Path, dict[str, Any]]:
    """Fits, tests the best checkpoint, and writes and prints the summary.

    Returns:
        The run directory, and the metrics and costs that its `summary.json` holds.

    Raises:
        UsageError: the config asks for something that cannot be; nothing is left behind.
    """
    quiet()
    require(0 <= cfg.seed < 2**32, f"seed={cfg.seed}: expected a whole number from 0 to 4294967295")
    require(cfg.save_every_n_steps >= 0, f"save_every_n_steps={cfg.save_every_n_steps}: expected 0 or more")
    data = build_data(cfg)
    data.prepare_data()  # a download that fails does so before anything is made
    data.check_trainable(cfg.data.total_batch_size // data.batch_size)  # and before a net for a context of millions
    for split in data.sizes:
        _check_limit(cfg, data, split)
    task = build_module(cfg, training_device(cfg))
    try:
        select_layers(cfg.monitor.curves, named_norms(task.model))
    except ValueError as error:
        raise UsageError(f"monitor.curves={cfg.monitor.curves}: {error}") from error
    with open_run(cfg) as run:
        if cfg.init.weights and run.checkpoint is None:
            initialise_(task, cfg, data)
        return run.path, _train(cfg, run, data, task)


def evaluate(cfg: DictConfig, checkpoint: Path, split: str) -> dict[str, float]:
    """The metrics of a checkpoint on `split`, "val" or "test", as training would have printed them; printed here too.

    Raises:
        UsageError: no such split, data of other classes or sizes, or weights that do not fit the net.
    """
    data, task = restored(cfg, checkpoint, split)
    progress = [ProgressBar(refresh_rate=10)] if sys.stdout.isatty() else []
    trainer = build_trainer(
        cfg, logger=False, enable_checkpointing=False, callbacks=progress, enable_progress_bar=bool(progress)
    )
    metrics = measured(trainer, task, data, split)
    if trainer.is_global_zero:
        for tag, value in metrics.items():
            print(f"{tag} {value:.6f}")
    return metrics


def restored(cfg: DictConfig, checkpoint: Path, split: str) -> tuple[DataModule, BaseModule]:
    """The data of `cfg`, and the task with a checkpoint's weights.

    Raises:
        UsageError: as `evaluate` says.
    """
    require(split in ("val", "test"), f"split={split}: choose val or test")
    quiet()
    saved = load_checkpoint(checkpoint, "cpu")
    trained_on = saved["config"]["data"]
    data = build_data(cfg)
    for key, found in data.found.items():
        was = trained_on.get(key, found)
        require(found == was, f"data: the net was trained on {key}={was}, and these have {key}={found}")
    task = build_module(cfg)
    data.prepare_data()
    _check_limit(cfg, data, split)
    try:
        task.load_state_dict(saved["state_dict"])
    except RuntimeError as error:
        raise UsageError(f"{checkpoint}: its weights do not fit this net; was the code changed?") from error
    return data, task


def measured(trainer: L.Trainer, task: BaseModule, data: DataModule, split: str) -> dict[str, float]:
    """The metrics of `task` on a split of `data`, by their tags.

    Raises:
        UsageError: the split is empty.
    """
    measure = trainer.validate if split == "val" else trainer.test
    metrics: dict[str, float] = dict(*measure(task, datamodule=data, verbose=False))
    require(bool(metrics), f"split={split}: the data have no such samples")
    return metrics


def _check_limit(cfg: DictConfig, data: DataModule, split: str) -> None:
    """Lightning would stumble over it late, in the test after days of training."""
    batches = cfg.data.total_batch_size // data.batch_size
    data.check_limit(split, cfg.trainer[f"limit_{split}_batches"], process_count(cfg.trainer), batches)


def _train(cfg: DictConfig, run: Run, data: DataModule, task: BaseModule) -> dict[str, Any]:
    meta_model = partial(build_model, cfg, "meta")
    throughput = Throughput(cfg.data.total_batch_size, task.unit, task.units_per_sample, meta_model)
    terminal = sys.stdout.isatty()
    every = cfg.save_every_n_steps
    resumed_step = None if run.checkpoint is None else load_checkpoint(run.checkpoint)["global_step"]
    monitor = NormMonitor(cfg.monitor.every_n_steps, cfg.monitor.samples)
    trainer = build_trainer(
        cfg,
        default_root_dir=run.path,
        logger=build_loggers(run.path, resumed_step, plain(cfg.logger)),
        enable_progress_bar=terminal,
        callbacks=[
            StepSeeding(cfg.seed),
            ExactResume(),
            FinalValidation(),
            monitor,
            NormFigures(monitor, cfg.monitor.curves, run.path),
            HParams(cfg),
            throughput,
            Divergence(cfg.trainer.log_every_n_steps),
            BestCheckpoint(run.checkpoints, cfg.task.monitor, cfg.task.monitor_mode),
            LastCheckpoint(run.checkpoints, every),
            ConfigRecord(plain(cfg), run.path),
            ProgressBar(refresh_rate=10) if terminal else ProgressLines(throughput),
        ],
    )
    if trainer.is_global_zero:
        print_tree(cfg)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=run.checkpoint, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C, after it has saved a checkpoint
        if trainer.is_global_zero and run.checkpoints.exists():
            trained = trainer.global_step == trainer.max_steps  # and validation was interrupted
            measure = f"python evaluate.py checkpoint={quote(str(run.checkpoints / 'last.ckpt'))} measures it"
            go_on = f"python train.py resume={quote(str(run.path))} goes on from there"
            print(f"stopped at step {trainer.global_step}; {measure if trained else go_on}")
        raise SystemExit(130) from None
    except Diverged:
        if trainer.is_global_zero:
            write_summary(run, cfg, _reached(trainer, task, throughput) | {"diverged": True})
        raise
    # read before the test, which takes the callbacks back to where the best checkpoint was saved
    values = _reached(trainer, task, throughput)
    trainer.test(task, datamodule=data, ckpt_path=best_checkpoint(run.path), verbose=False, weights_only=True)
    values |= _metrics(trainer)
    if trainer.is_global_zero:
        write_summary(run, cfg, values)
        print_summary(run.path, values)
    return values


def _reached(trainer: L.Trainer, task: BaseModule, throughput: Throughput) -> dict[str, Any]:
    return _metrics(trainer) | {
        "steps": trainer.global_step,
        "epochs": round(trainer.global_step * trainer.accumulate_grad_batches / trainer.num_training_batches, 3),
        "seconds": throughput.seconds,
        **throughput.overall(),
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _metrics(trainer: L.Trainer) -> dict[str, Any]:
    return {tag: value.item() for tag, value in trainer.callback_metrics.items() if "/" in tag}


def build_data(cfg: DictConfig) -> DataModule:
    """The data module, with its share of the total batch; what it finds (the number of classes, say) goes into `cfg`.

    Raises:
        UsageError: data that are not there, or a batch that does not divide.
    """
    settings = plain(cfg.data)
    kind = get_kind(settings.pop("module"))
    total, per_device = settings.pop("total_batch_size"), settings["batch_size"]
    settings["batch_size"], _ = split_batch(total, per_device, process_count(cfg.trainer))
    with translate_errors("data"):
        data = kind.build(seed=cfg.seed, **settings)
    cfg.data.update(data.found)
    return data


def build_module(cfg: DictConfig, device: torch.device | str | None = None) -> BaseModule:
    net = build_model(cfg, device)
    if cfg.trainer.strategy == "fsdp":
        check_shardable(net, cfg.trainer.precision)
    return get_family(cfg.task.name).build_module(
        net,
        cfg,
        optim=plain(cfg.optim),
        schedule=plain(cfg.schedule),
        ema_decay=cfg.ema.decay,
        compile=cfg.compile,
        seed=cfg.seed,
    )


def training_device(cfg: DictConfig) -> str | None:
    """Where the net to be trained is built: on "meta" if FSDP can draw it in shards, else whole in main memory."""
    later = get_family(cfg.task.name).init_on_device and not cfg.init.weights
    return "meta" if cfg.trainer.strategy == "fsdp" and later else None


def build_trainer(cfg: DictConfig, **settings: Any) -> L.Trainer:
    """Lightning's Trainer by section `trainer`; data modules shard and shuffle themselves.

    Raises:
        UsageError: Lightning refuses a value of the section.
    """
    options = plain(cfg.trainer) | {"devices": device_list(cfg.trainer.devices)}
    _, accumulate = split_batch(cfg.data.total_batch_size, cfg.data.batch_size, process_count(cfg.trainer))
    _check_trainer(options, cfg.ema.decay, accumulate)
    if cfg.trainer.strategy == "fsdp":
        options["strategy"] = ShardedStrategy(process_count(cfg.trainer))
        settings["callbacks"] = [*settings.get("callbacks", []), EqualForwards()]
    if steps := options.pop("val_every_n_steps"):
        options |= {"val_check_interval": steps * accumulate, "check_val_every_n_epoch": None}
    try:
        return L.Trainer(
            **options,
            accumulate_grad_batches=accumulate,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            **settings,
        )
    except (ImportError, MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"trainer: {' '.join(str(error).split())}") from error


def _check_trainer(options: dict[str, Any], ema_decay: float, accumulate: int) -> None:
    """Refuses what Lightning would take and stumble over later."""
    epochs, steps, share = options["max_epochs"], options["max_steps"], options["limit_train_batches"]
    bounded = epochs >= 1 or (epochs == -1 and steps > 0)
    require(bounded, f"trainer.max_epochs={epochs}: expected at least 1, or -1 with trainer.max_steps")
    require(steps == -1 or steps >= 1, f"trainer.max_steps={steps}: expected at least 1, or -1 for all of max_epochs")
    require(share > 0, f"trainer.limit_train_batches={share}: expected more than 0")
    for key in ("check_val_every_n_epoch", "log_every_n_steps"):
        require(options[key] >= 1, f"trainer.{key}={options[key]}: expected a whole number from 1 on")
    every = options["val_every_n_steps"]
    require(every >= 0, f"trainer.val_every_n_steps={every}: expected 1 or more, or 0 for epochs")
    whole = not every or isinstance(share, float) or share % accumulate == 0
    require(whole, f"trainer.limit_train_batches={share}: gradients accumulate over {accumulate}; choose a multiple")
    precision = str(options["precision"])
    averages = not (ema_decay and precision in ("bf16-true", "16-true"))
    require(averages, f"trainer.precision={precision}: ema needs 32 bits; take bf16-mixed, or ema.decay=0")
