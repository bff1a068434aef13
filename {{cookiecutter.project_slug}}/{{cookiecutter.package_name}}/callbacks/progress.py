"""Progress: a bar in a terminal, and lines for logs."""

from time import perf_counter

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from .throughput import Throughput, reports_by_steps


class ProgressBar(RichProgressBar):
    """Lightning's, but where steps bound the training it ends at the last one, and names no number of epochs."""

    @property
    def total_train_batches(self) -> int | float:
        batches, steps = self.trainer.num_training_batches, self.trainer.max_steps
        if steps == -1:
            return batches
        return min(batches, (steps - self.trainer.global_step) * self.trainer.accumulate_grad_batches)

    def _get_train_description(self, current_epoch: int) -> str:
        if self.trainer.max_epochs == -1:
            return f"{f'Epoch {current_epoch}':{len(self.validation_description)}}"
        return super()._get_train_description(current_epoch)


class ProgressLines(L.Callback):
    """A line for each epoch or, in a run that validates by steps, for each validation, on rank 0:

    `epoch    3/40  step 60  train/loss 0.5200  val/loss 0.6100  val/acc 0.8600  1.2 s`
    `step  250/1500  train/loss 2.3100  val/loss 2.2800  31.0 s  66,000 tokens/s`
    """

    def __init__(self, throughput: Throughput) -> None:
        self.throughput = throughput

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if reports_by_steps(trainer):
            total = str(int(trainer.estimated_stepping_batches))
            self._print(trainer, f"step {trainer.global_step:>{len(total)}}/{total}", self.throughput.reading())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not reports_by_steps(trainer):
            last = trainer.max_epochs
            epoch = f"{trainer.current_epoch + 1}" + (f"/{last}" if last and last > 0 else "")
            self._print(trainer, f"epoch {epoch:>7}  step {trainer.global_step}")

    def _print(self, trainer: L.Trainer, place: str, speed: str = "") -> None:
        now = perf_counter()
        seconds, self._since = now - self._since, now
        if trainer.is_global_zero:
            values = trainer.callback_metrics
            others = [tag for tag in values if tag.startswith("val/") and tag != "val/loss"]
            metrics = [f"{tag} {values[tag]:.4f}" for tag in ("train/loss", "val/loss", *others) if tag in values]
            print("  ".join(filter(None, [place, *metrics, f"{seconds:.1f} s", speed])), flush=True)
