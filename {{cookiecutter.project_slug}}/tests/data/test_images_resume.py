"""Which images a run sees that was interrupted and goes on."""

import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn

from {{cookiecutter.package_name}}.callbacks.resume import StepClock
from {{cookiecutter.package_name}}.data.images import Images


class Interruption(Exception):
    pass


class Recorder(L.LightningModule):
    """Trains one number, and keeps what it was given: (step, images, targets)."""

    def __init__(self, interrupt_at: tuple[str, int] = ("never", 0), checkpoint: Path = Path()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.interrupt_at, self.checkpoint = interrupt_at, checkpoint
        self.seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def training_step(self, batch, batch_idx):
        self.maybe_interrupt("in a step")
        self.seen.append((self.global_step, *batch))
        return self.weight * batch[0].mean()

    def on_train_batch_end(self, *_):
        self.maybe_interrupt("after a step")

    def maybe_interrupt(self, place):
        if (place, self.global_step) == self.interrupt_at:
            self.trainer.save_checkpoint(self.checkpoint)
            raise Interruption

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(net: Recorder, workers: int = 0, resume: Path | None = None) -> Recorder:
    augment = {"scale": [0.5, 1.0], "re_prob": 0.5, "re_mode": "pixel"}
    mixup = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    data = Images("digits", 8, 1, 10, 250, workers=workers, augment=augment, mixup=mixup, val_fraction=0.3, seed=3)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        max_epochs=-1,
        max_steps=10,
        callbacks=[StepClock(validate_every=10)],
        limit_val_batches=0,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trainer.fit(net, data, ckpt_path=resume)
        except Interruption:
            assert net.interrupt_at[0] != "never"
    assert not [w for w in caught if "not resumable" in str(w.message)]
    return net


@pytest.fixture(scope="module")
def uninterrupted() -> Recorder:
    return fit(Recorder())


# two epochs of five steps
@pytest.mark.parametrize(
    ("place", "step", "workers"),
    [("after a step", 2, 0), ("after a step", 5, 0), ("after a step", 8, 2), ("in a step", 3, 2), ("in a step", 7, 0)],
)
def test_resumed_run_sees_the_rest_and_nothing_else(uninterrupted, tmp_path, place, step, workers):
    checkpoint = tmp_path / "last.ckpt"
    first = fit(Recorder((place, step), checkpoint), workers)
    second = fit(Recorder(), workers, checkpoint)
    assert len(first.seen) == step
    assert len(first.seen + second.seen) == 10
    for got, expected in zip(first.seen + second.seen, uninterrupted.seen, strict=True):
        assert got[0] == expected[0]
        assert torch.equal(got[1], expected[1])
        assert torch.equal(got[2], expected[2])
