"""Runs that go on, and those that must not."""

import math
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from {{cookiecutter.package_name}} import train as fit
from {{cookiecutter.package_name}}.callbacks.checkpoint import LastCheckpoint
from {{cookiecutter.package_name}}.config import compose, recompose
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.models.base import BaseModule
from {{cookiecutter.package_name}}.runs import RESUMABLE, last_checkpoint, resumed_run, saved_checkpoint

from .conftest import each_family
from .runs import Start, Tiny, load, rows, scalars

# Two batches a step, six steps an epoch, a validation after steps 4 and 8 and at the end.
BY_STEPS = [
    *("trainer.max_epochs=-1", "trainer.max_steps=10", "trainer.val_every_n_steps=4", "trainer.limit_val_batches=3"),
    *("data.batch_size=16", "trainer.limit_train_batches=12", "ema.decay=0.9"),
]


def resume(run: Path, *argv: str) -> DictConfig:
    return recompose(resumed_run(run)[1], [f"resume={run}", *argv], anew=("trainer", "logger"), free=RESUMABLE)


@pytest.fixture
def break_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`break_off("on_train_batch_start", 3, ...)` begins a run in which that hook is interrupted at its third call."""

    def begin(hook: str, call: int, *argv: str) -> Path:
        calls = count(1)

        def stop(task: BaseModule, *_: Any) -> None:
            if next(calls) == call:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(BaseModule, hook, stop)
            with pytest.raises(SystemExit) as caught:
                start(*argv, "name=broken-off")
        assert caught.value.code == 130
        return Path(compose(list(argv)).runs, "broken-off")

    return begin


def assert_equal(runs: list[Path], values: list[dict[str, Any]], events: bool = True) -> None:
    """Both runs came to the same weights, moments, best weights, metrics and curves, all that is not time."""
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (load(run / "checkpoints" / name) for run in runs)
        assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"]), name
        moments = [state["optimizer_states"][0]["state"][0]["exp_avg"] for state in (one, other)]
        assert torch.equal(*moments)
    kept = [key for key in values[0] if "/" in key or key in ("steps", "epochs")]
    assert {key: values[1][key] for key in kept} == {key: values[0][key] for key in kept}
    timeless = [
        sorted((step, tag, 0.0 if tag.startswith("throughput") else value) for step, tag, value in rows(run))
        for run in runs
    ]
    assert timeless[0] == timeless[1]
    if events:
        curves = [scalars(run) for run in runs]
        for tag in curves[0]:
            if not tag.startswith("throughput"):
                assert curves[0][tag] == curves[1][tag], tag


@pytest.mark.parametrize(
    ("hook", "call"),
    [("on_train_batch_start", 7), ("on_train_batch_start", 10), ("on_validation_batch_start", 2)],
    ids=["between epochs", "in an epoch", "in a validation"],
)
def test_a_resumed_run_equals_one_that_never_stopped(
    start: Start, break_off: Callable[..., Path], tiny: Tiny, tmp_path: Path, hook: str, call: int
) -> None:
    argv = [*tiny.random, "ema.decay=0.9", "trainer.max_epochs=3"]
    whole, expected = start(*argv)
    run = break_off(hook, call, *argv, f"runs={tmp_path / 'runs'}")
    resumed, values = start(cfg=resume(run))
    assert resumed == run
    assert_equal([whole, run], [expected, values])


@pytest.fixture(scope="module")
def by_steps(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("whole")
    return fit.train(compose([*tiny.argv, *tiny.random, *BY_STEPS, f"runs={folder}"]))


@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("on_train_batch_start", 5),
        ("on_train_batch_start", 8),
        ("on_validation_start", 1),
        ("on_validation_batch_start", 2),
        ("on_train_batch_start", 9),
        ("on_train_batch_start", 13),
        ("on_validation_batch_start", 8),
    ],
    ids=[
        "between steps",
        "within the step before a validation",
        "before a validation",
        "in a validation",
        "after a validation",
        "between epochs",
        "in the last validation",
    ],
)
@each_family
def test_a_run_by_steps_goes_on_as_if_it_had_never_stopped(
    start: Start,
    break_off: Callable[..., Path],
    by_steps: tuple[Path, dict[str, Any]],
    tiny: Tiny,
    tmp_path: Path,
    hook: str,
    call: int,
) -> None:
    whole, expected = by_steps
    run = break_off(hook, call, *tiny.random, *BY_STEPS, f"runs={tmp_path / 'runs'}")
    _, values = start(cfg=resume(run))
    assert_equal([whole, run], [expected, values])


def test_a_killed_run_goes_on_from_what_it_saved_before_a_validation(
    start: Start, break_off: Callable[..., Path], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 4 is saved, then validated; killed at step 5, it resumes with a validation, which is written once."""
    argv = [*tiny.random, *BY_STEPS, "checkpoint.every_n_steps=4"]
    whole, expected = start(*argv)
    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_exception", lambda *_: None)
        run = break_off("on_train_batch_start", 11, *argv, f"runs={tmp_path / 'runs'}")
    assert load(run / "checkpoints" / "last.ckpt")["global_step"] == 4
    _, values = start(cfg=resume(run))
    assert_equal([whole, run], [expected, values], events=False)


def test_a_run_goes_on_with_another_batch_per_device(
    start: Start, break_off: Callable[..., Path], tiny: Tiny, tmp_path: Path
) -> None:
    """What a step is does not change, so the rest of the epoch is the same samples."""
    argv = ["trainer.max_epochs=1", "data.batch_size=16", "trainer.limit_train_batches=1.0", "trainer.max_steps=5"]
    whole, _ = start(*argv)
    run = break_off("on_train_batch_start", 6, *argv, f"runs={tmp_path / 'runs'}")
    start(cfg=resume(run, "data.batch_size=32"))
    ours, theirs = ([value for _, tag, value in rows(path) if tag == "train/grad_norm"] for path in (run, whole))
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert len(ours) == 5


def test_a_finished_run_says_so_and_stays_as_it_is(start: Start) -> None:
    run, _ = start()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for arguments in ([], ["trainer.max_epochs=1"], ["trainer.max_steps=12"]):
        with pytest.raises(UsageError, match="that run is finished after 12 steps"):
            start(cfg=resume(run, *arguments))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_finished_run_can_be_made_longer(start: Start, tiny: Tiny) -> None:
    run, values = start()
    before = load(run / "checkpoints" / "last.ckpt")["callbacks"]["Throughput"]["seconds"]
    _, longer = start(cfg=resume(run, "trainer.max_epochs=3"))
    assert (values["steps"], longer["steps"]) == (12, 18)
    assert longer["seconds"] > before > 0
    assert [step for step, tag, _ in rows(run) if tag == "val/loss"] == [5, 11, 17]


def test_a_run_by_steps_is_made_longer_where_it_stopped(start: Start) -> None:
    """In the middle of an epoch: a run of 4 steps, then 9, sees what one of 9 steps sees."""
    argv = ["trainer.max_epochs=-1", "trainer.val_every_n_steps=4", "schedule.name=constant"]
    argv += ["schedule.warmup_steps=0", "schedule.warmup_share=0.0"]
    whole, expected = start(*argv, "trainer.max_steps=9")
    run, shorter = start(*argv, "trainer.max_steps=4")
    assert (shorter["steps"], shorter["epochs"]) == (4, 0.667)
    with pytest.raises(UsageError, match=r"finished after 4 steps"):
        start(cfg=resume(run))
    _, values = start(cfg=resume(run, "trainer.max_steps=9"))
    one, other = (load(path / "checkpoints" / "last.ckpt")["state_dict"] for path in (whole, run))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert values["val/loss"] == expected["val/loss"]


def test_a_prolonged_run_says_that_its_rate_changes(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = start("trainer.max_epochs=1", "schedule.name=cosine", "schedule.final_factor=0.0", "optim.lr=0.125")
    capsys.readouterr()
    start(cfg=resume(run, "trainer.max_epochs=2"))
    assert capsys.readouterr().out.count("stretched from 6 to 12 steps") == 1
    rates = {step: value for step, tag, value in rows(run) if tag == "lr"}
    assert rates[6] == pytest.approx(0.125 * (1 + math.cos(math.pi * (6 - 1) / (12 - 1))) / 2)
    start(cfg=resume(run, "trainer.max_epochs=3"))
    assert "stretched from 12 to 18" in capsys.readouterr().out


def test_a_resume_that_breaks_leaves_the_checkpoint(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = start()
    last = (run / "checkpoints" / "last.ckpt").read_bytes()

    def fail(*_: Any) -> None:
        raise RuntimeError("before training")

    monkeypatch.setattr(BaseModule, "on_fit_start", fail)
    with pytest.raises(RuntimeError, match="before training"):
        start(cfg=resume(run, "trainer.max_epochs=3"))
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == last


def test_a_test_that_breaks_leaves_the_checkpoint(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The net has the best weights by then, not the last."""

    def fail(*_: Any) -> None:
        raise RuntimeError("in the test")

    with monkeypatch.context() as patch:
        patch.setattr(BaseModule, "on_test_start", fail)
        patch.setattr(LastCheckpoint, "_save_checkpoint", save := _counted(LastCheckpoint._save_checkpoint))
        with pytest.raises(RuntimeError, match="in the test"):
            start()
    assert save.calls == 2, "one for each validation"  # type: ignore[attr-defined]


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any) -> Any:
        counted.calls += 1  # type: ignore[attr-defined]
        return function(*args)

    counted.calls = 0  # type: ignore[attr-defined]
    return counted


def test_a_copied_run_is_its_own(start: Start) -> None:
    run, _ = start()
    copy = Path(shutil.copytree(run, run.with_name("copy")))
    shutil.rmtree(run)
    _, values = start(cfg=resume(copy, "trainer.max_epochs=3"))
    assert values["epochs"] == 3
    assert not run.exists()
    state = next(s for key, s in load(copy / "checkpoints" / "last.ckpt")["callbacks"].items() if "Best" in key)
    assert state["best_model_path"] == str(copy / "checkpoints" / "best.ckpt")
    assert state["best_model_score"] > 0


def test_slurm_saves_last_and_that_is_where_it_goes_on(start: Start) -> None:
    """Lightning writes `hpc_ckpt_*` into the run directory before a job is re-queued."""
    run, _ = start()
    checkpoint = load(run / "checkpoints" / "last.ckpt")
    torch.save(checkpoint | {"global_step": 13}, run / "hpc_ckpt_1.ckpt")
    torch.save(checkpoint | {"global_step": 11}, run / "hpc_ckpt_2.ckpt")
    assert last_checkpoint(run) == run / "hpc_ckpt_1.ckpt"


def test_a_damaged_last_checkpoint_falls_back_to_the_best(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = start("trainer.max_epochs=1")
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    capsys.readouterr()
    _, values = start(cfg=resume(run, "trainer.max_epochs=2"))
    assert values["epochs"] == 2
    assert capsys.readouterr().out.count("last.ckpt: damaged") == 1


def test_a_damaged_best_checkpoint_is_told_before_training(start: Start) -> None:
    run, _ = start("trainer.max_epochs=1")
    (run / "checkpoints" / "best.ckpt").write_bytes(b"half")
    with pytest.raises(UsageError, match=r"best\.ckpt"):
        resumed_run(run)


def test_another_runs_checkpoint_is_refused(start: Start) -> None:
    run, other = start("trainer.max_epochs=1")[0], start("trainer.max_epochs=1", "optim.lr=0.5")[0]
    shutil.copy(other / "checkpoints" / "last.ckpt", run / "checkpoints" / "last.ckpt")
    with pytest.raises(UsageError, match=r"optim\.lr"):
        resumed_run(run)


def test_another_runs_data_are_refused_before_training(start: Start) -> None:
    """The config is the same, since data may lie elsewhere on another machine."""
    run, _ = start("trainer.max_epochs=1")
    last = run / "checkpoints" / "last.ckpt"
    checkpoint = load(last)
    kind = next(key for key, state in checkpoint.items() if isinstance(state, dict) and "sizes" in state)
    checkpoint[kind]["sizes"]["train"] += 1
    torch.save(checkpoint, last)
    with pytest.raises(UsageError, match="other data"):
        resumed_run(run)


def test_a_run_may_be_named_by_its_checkpoint_file(start: Start) -> None:
    run, _ = start("trainer.max_epochs=1")
    assert resumed_run(run / "checkpoints" / "last.ckpt")[0] == run


def test_runs_that_cannot_be_taken_up(start: Start, tmp_path: Path) -> None:
    run, _ = start("trainer.max_epochs=1", "name=only")
    with pytest.raises(UsageError, match=r"there is no run there.*; there is .*only"):
        resumed_run(run.with_name("other"))
    with pytest.raises(UsageError, match=r"there is no checkpoint; there is .*only"):
        saved_checkpoint(run.with_name("other"))
    last = run / "checkpoints" / "last.ckpt"
    last.rename(last.with_name("gone"))
    with pytest.raises(UsageError, match=r"no checkpoint to resume from; init=.*best\.ckpt starts a new one"):
        resumed_run(run)
    last.with_name("gone").rename(last)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(UsageError, match=r"foreign\.ckpt: no checkpoint that train\.py wrote"):
        saved_checkpoint(foreign)
    whole = (run / "checkpoints" / "last.ckpt").read_bytes()
    for damaged in (b"", b"no checkpoint at all", b"a: 1\n", whole[:1000]):
        foreign.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"foreign\.ckpt: damaged, or no checkpoint"):
            saved_checkpoint(foreign)
