"""From a config to the things it names. Families, data modules and loggers are modules, found by their names."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from .config import plain
from .data import get_kind
from .data.base import DataModule
from .devices import device_list, process_count, split_batch
from .distributed import EqualForwards, ShardedStrategy, check_shardable
from .errors import UsageError, require
from .loggers import extra_logger, tensorboard
from .loggers.metrics_csv import MetricsCSV
from .models import get_family
from .models.base import Task
from .models.build import build_net
from .runs import Run, load_checkpoint


def build_data(cfg: DictConfig) -> DataModule:
    """The data module, with its share of the total batch; what it finds (the number of classes, say) goes into `cfg`.

    Raises:
        UsageError: data that are not there, or a batch that does not divide.
    """
    settings = plain(cfg.data)
    kind = get_kind(settings.pop("module"))
    total, per_device = settings.pop("total_batch_size"), settings["batch_size"]
    settings["batch_size"], _ = split_batch(total, per_device, process_count(cfg.trainer))
    data = kind.build(seed=cfg.seed, **settings)
    cfg.data.update(data.found)
    return data


def build_task(cfg: DictConfig, device: torch.device | str | None = None) -> Task:
    net = build_net(cfg, device)
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


def build_loggers(cfg: DictConfig, run: Run) -> list[Logger]:
    """TensorBoard, `metrics.csv`, and what `logger=` names besides."""
    step = None if run.checkpoint is None else load_checkpoint(run.checkpoint)["global_step"]
    loggers: list[Logger] = [tensorboard.build(run.path, step), MetricsCSV(run.path / "metrics.csv", step)]
    settings = plain(cfg.logger)
    if (name := settings.pop("name")) != "none":
        loggers.append(extra_logger(name, run.path, settings))
    return loggers


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
