"""Training and evaluation from start to end: what `train.py` and `evaluate.py` do once the config stands."""

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from omegaconf import DictConfig

from .build import build_data, build_loggers, build_task, build_trainer
from .callbacks.console import EpochLines
from .callbacks.norm_monitor import NormMonitor
from .callbacks.record import ConfigRecord
from .callbacks.resume import LogStep
from .callbacks.seeding import StepSeeding
from .callbacks.throughput import Throughput
from .cli import quiet
from .config import plain
from .errors import require
from .runs import Run, open_run, peak_memory_bytes, write_summary
from .show import print_summary, print_tree
from .tasks.base import Task


def train(cfg: DictConfig) -> tuple[Path, dict[str, Any]]:
    """Fits, tests the best checkpoint, and writes and prints the summary.

    Returns:
        The run directory, and the metrics and costs that its `summary.json` holds.

    Raises:
        UsageError: the config asks for something that cannot be; nothing is left behind.
    """
    quiet()
    data, task = build_data(cfg), build_task(cfg)
    data.prepare_data()  # a download that fails does so before anything is made
    with open_run(cfg) as run:
        return run.path, _train(cfg, run, data, task)


def evaluate(cfg: DictConfig, checkpoint: Path, split: str) -> dict[str, float]:
    """The metrics of a checkpoint on `split`, "val" or "test", as training would have printed them; printed here too."""
    require(split in ("val", "test"), f"split={split}: choose val or test")
    quiet()
    data, task = build_data(cfg), build_task(cfg)
    data.prepare_data()
    task.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["state_dict"])
    progress = [RichProgressBar()] if sys.stdout.isatty() else []
    trainer = build_trainer(
        cfg, logger=False, enable_checkpointing=False, callbacks=progress, enable_progress_bar=bool(progress)
    )
    measure = trainer.validate if split == "val" else trainer.test
    metrics = dict(measure(task, datamodule=data, verbose=False)[0])
    if trainer.is_global_zero:
        for tag, value in metrics.items():
            print(f"{tag} {value:.6f}")
    return metrics


def _train(cfg: DictConfig, run: Run, data: L.LightningDataModule, task: Task) -> dict[str, Any]:
    best = ModelCheckpoint(
        run.checkpoints, "best", monitor=cfg.task.monitor, mode=cfg.task.monitor_mode, enable_version_counter=False
    )
    throughput = Throughput(cfg.data.total_batch_size)
    terminal = sys.stdout.isatty()
    trainer = build_trainer(
        cfg,
        default_root_dir=run.path,
        logger=build_loggers(cfg, run),
        enable_progress_bar=terminal,
        callbacks=[
            StepSeeding(cfg.seed),
            LogStep(),
            NormMonitor(cfg.monitor.every_n_steps, cfg.monitor.samples, run.path),
            throughput,
            best,
            *_last_checkpoints(run, cfg.save_every_n_steps),
            ConfigRecord(plain(cfg)),
            RichProgressBar() if terminal else EpochLines(),
        ],
    )
    if trainer.is_global_zero:
        run.save_config(cfg)
        print_tree(cfg)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=run.checkpoint, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C, after it has saved a checkpoint
        if trainer.is_global_zero and run.checkpoints.exists():
            print(f"stopped at step {trainer.global_step}; python train.py resume={run.path} goes on from there")
        raise SystemExit(130) from None
    values: dict[str, Any] = _metrics(trainer) | {
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "seconds": throughput.seconds,
        "samples_per_second": throughput.samples_per_second,
        "parameters": sum(parameter.numel() for parameter in task.net.parameters()),
        "peak_memory_bytes": peak_memory_bytes(),
    }  # read before the test, which takes the callbacks back to where the best checkpoint was saved
    trainer.test(task, datamodule=data, ckpt_path=best.best_model_path or None, verbose=False, weights_only=True)
    values |= _metrics(trainer)
    if trainer.is_global_zero:
        write_summary(run, cfg, values)
        print_summary(run.path, values)
    return values


def _last_checkpoints(run: Run, every_n_steps: int) -> list[ModelCheckpoint]:
    """`last.ckpt` at the end of every epoch, when something breaks, and every so many steps if that is wanted."""
    each_epoch = ModelCheckpoint(
        run.checkpoints, "last", save_on_train_epoch_end=True, save_on_exception=True, enable_version_counter=False
    )
    each_n_steps = ModelCheckpoint(
        run.checkpoints, "last", every_n_train_steps=every_n_steps, enable_version_counter=False
    )
    return [each_epoch, each_n_steps] if every_n_steps else [each_epoch]


def _metrics(trainer: L.Trainer) -> dict[str, float]:
    return {tag: value.item() for tag, value in trainer.callback_metrics.items() if "/" in tag}
