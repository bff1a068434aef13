"""Progress for logs: one line an epoch, where the output is not a terminal."""

from time import perf_counter

import lightning as L


class EpochLines(L.Callback):
    """`epoch  3/40  step 60  train/loss 0.52  val/loss 0.61  val/acc 0.86  1.2 s`, on rank 0."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = perf_counter()  # a resumed run starts in the middle of an epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            values, last = trainer.callback_metrics, trainer.max_epochs
            others = [tag for tag in values if tag.startswith("val/") and tag != "val/loss"]
            metrics = [f"{tag} {values[tag]:.4f}" for tag in ("train/loss", "val/loss", *others) if tag in values]
            epoch = f"{trainer.current_epoch + 1}" + (f"/{last}" if last and last > 0 else "")
            seconds = perf_counter() - self._since
            words = [f"epoch {epoch:>7}", f"step {trainer.global_step}", *metrics, f"{seconds:.1f} s"]
            print("  ".join(words), flush=True)
