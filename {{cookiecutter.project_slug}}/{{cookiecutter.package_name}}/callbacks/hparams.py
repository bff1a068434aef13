"""TensorBoard's HPARAMS: the settings that tell runs apart, and their metrics."""

from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

from ..config import CONFIGS, groups, plain

# Columns. TensorBoard takes them from one run, whichever it reads first, so every run names all of them,
# whether it has such a key or not, and the metrics of all tasks.
OPTIONS = ("task", "norm", "data", "model")
NUMBERS = (
    *("norm.alpha0", "optim.lr", "optim.alpha_lr_factor", "optim.weight_decay", "seed"),
    *("model.embed_dim", "model.depth", "data.total_batch_size"),
)
WORDS = ("model.init",)
FIRST = ("task", "norm", "norm.alpha0", "optim.lr", "seed")  # TensorBoard shows five, and the rest when asked


class HParams(L.Callback):
    """Writes the columns and this run's values when training starts, and its end after the test.

    Other loggers get the whole config.

    The metrics are the last points of curves that are there anyway. A resumed run keeps its row: rows go by directory.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.values: dict[str, float | str] = {name: cfg.defaults[name] for name in OPTIONS if name in cfg.defaults}
        for key in (*NUMBERS, *WORDS):
            value = OmegaConf.select(cfg, key)
            if isinstance(value, str if key in WORDS else (int, float)):
                self.values[key] = value
        self.metrics = metrics(cfg.task.monitor)
        self.config = plain(cfg)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        columns = dict.fromkeys(OPTIONS, "") | dict.fromkeys(NUMBERS, 0.0) | dict.fromkeys(WORDS, "")
        experiment, _, _ = hparams(columns, dict.fromkeys(self.metrics, 0.0))
        plugin_data = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin_data.content)
        for column in content.experiment.hparam_infos:
            column.differs = column.name in FIRST
        plugin_data.content = content.SerializeToString()
        _, start, _ = hparams(self.values, {})
        _write(trainer, experiment, start)
        for logger in trainer.loggers:
            if not isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(self.config)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        _, _, end = hparams({}, {})
        _write(trainer, end)


def metrics(monitor: str) -> list[str]:
    """The loss and what the best checkpoints of all tasks are best at, in validation and in the test."""
    tasks = (OmegaConf.load(CONFIGS / "task" / f"{name}.yaml") for name in groups()["task"])
    tags = dict.fromkeys([monitor, *(task.task.monitor for task in tasks), "val/loss"])
    return [f"{stage}/{tag.removeprefix('val/')}" for stage in ("test", "val") for tag in tags]


def _write(trainer: L.Trainer, *summaries: Any) -> None:
    for logger in trainer.loggers if trainer.is_global_zero else []:
        if isinstance(logger, TensorBoardLogger):
            for one in summaries:
                logger.experiment._get_file_writer().add_summary(one)
