"""Runs that a signal or an error stops, and saves that break off."""

import os
import signal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from {{cookiecutter.package_name}}.callbacks.checkpoint import AtomicCheckpointIO, LastCheckpoint
from {{cookiecutter.package_name}}.callbacks.resume import STOP_SIGNALS
from {{cookiecutter.package_name}}.config.errors import Diverged
from {{cookiecutter.package_name}}.models import base
from {{cookiecutter.package_name}}.models.base import BaseModule

from .runs import Start, Tiny, load
from .test_resume import BY_STEPS, assert_equal, by_steps, resume

__all__ = ["by_steps"]  # a fixture


STEP_PARTS = {
    "in the backward pass": (BaseModule, "backward"),
    "before the optimiser": (BaseModule, "on_before_optimizer_step"),
    "after the optimiser": (AdamW, "step"),
    "in the moving average": (base, "update_average"),
    "in the scheduler": (LambdaLR, "step"),
    "in the callbacks": (LastCheckpoint, "on_train_batch_end"),
}


@pytest.mark.parametrize("signal_number", STOP_SIGNALS[:2], ids=lambda number: number.name)
@pytest.mark.parametrize("part", STEP_PARTS)
def test_a_signal_within_a_step_stops_after_it(
    start: Start,
    by_steps: tuple[Path, dict[str, Any]],
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    signal_number: signal.Signals,
) -> None:
    whole, expected = by_steps
    owner, name = STEP_PARTS[part]
    original, calls = getattr(owner, name), count(1)

    def signalled(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if next(calls) == 5:
            os.kill(os.getpid(), signal_number)
        return result

    before = signal.getsignal(signal_number)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, signalled)
        with pytest.raises(SystemExit) as caught:
            start(*tiny.random, *BY_STEPS, f"runs={tmp_path / 'runs'}", "name=broken-off")
    assert caught.value.code == 130
    assert signal.getsignal(signal_number) == before
    run = tmp_path / "runs" / "broken-off"
    _, values = start(cfg=resume(run))
    assert_equal([whole, run], [expected, values])


def test_a_signal_that_is_ignored_stays_so(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SIGHUP under nohup."""
    before = signal.signal(STOP_SIGNALS[-1], signal.SIG_IGN)
    monkeypatch.setattr(BaseModule, "on_train_batch_end", lambda *_: os.kill(os.getpid(), STOP_SIGNALS[-1]))
    try:
        _, values = start("trainer.max_epochs=1")
    finally:
        signal.signal(STOP_SIGNALS[-1], before)
    assert values["steps"] == 6


def test_a_signal_in_the_test_leaves_a_run_that_resumes_with_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = start("trainer.max_epochs=1")

    def stop(task: BaseModule) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BaseModule, "on_test_start", stop)
        with pytest.raises(SystemExit) as caught:
            start("trainer.max_epochs=1", f"runs={tmp_path / 'runs'}", "name=broken-off")
    assert caught.value.code == 130
    _, values = start(cfg=resume(tmp_path / "runs" / "broken-off"))
    metrics = [{tag: value for tag, value in one.items() if "/" in tag} for one in (expected, values)]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("error", [RuntimeError("in the step"), Diverged("nan")], ids=["error", "divergence"])
def test_an_error_within_the_optimisers_step_saves_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    """The weights are those of the next step then, and the counters those of this one."""
    calls = count(1)

    def fail(*_: Any) -> None:
        if next(calls) == 9:
            raise error

    monkeypatch.setattr(base, "update_average", fail)
    with pytest.raises(type(error)):
        start("ema.decay=0.9", f"runs={tmp_path}", "name=failed")
    assert load(tmp_path / "failed" / "checkpoints" / "last.ckpt")["global_step"] == 6  # of the first validation


def test_a_save_that_breaks_off_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the folder for temporary files is another file system, or full."""
    file = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, file)

    def half(content: Any, stream: Any) -> None:
        stream.write(b"half")
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos")  # as torch does

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match=r"space.*last\.ckpt"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, file)
    assert load(file) == {"step": 1}
    assert list(file.parent.iterdir()) == [file]
