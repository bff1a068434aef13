"""TensorBoard events in the run directory itself."""

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class Events(TensorBoardLogger):
    """Lightning's logger without its `hparams.yaml`: the run's `config.yaml` says more."""

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()


def build(run_dir: Path, resumed_step: int | None) -> Events:
    """A logger whose curves go on after a resume: events of steps that will be taken again are dropped from view."""
    purge = None if resumed_step is None else resumed_step + 1
    return Events(run_dir.parent, name=run_dir.name, version="", default_hp_metric=False, purge_step=purge)
