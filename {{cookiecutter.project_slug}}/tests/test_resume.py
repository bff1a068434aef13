"""Runs that go on, and those that must not."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from {{cookiecutter.package_name}}.config import recompose
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.runs import RESUMABLE, last_checkpoint, saved_checkpoint, saved_config
from {{cookiecutter.package_name}}.tasks.base import Task
from {{cookiecutter.package_name}}.tasks.vit import ViTTask

from .test_runs import Start, load, rows, scalars


def resume(run: Path, *argv: str) -> DictConfig:
    return recompose(saved_config(run), [f"resume={run}", *argv], anew=("trainer", "logger"), free=RESUMABLE)


RANDOM = ["model.drop_path=0.2", "ema.decay=0.9", "data.augment.re_prob=0.5", "trainer.max_epochs=3"]


@pytest.mark.parametrize("stop_at", [6, 9], ids=["between epochs", "in an epoch"])
def test_a_resumed_run_equals_one_that_never_stopped(
    start: Start, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    whole, expected = start(*RANDOM)

    def stop(task: Task, *_: Any) -> None:
        if task.trainer.global_step == stop_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ViTTask, "on_train_batch_start", stop)
        with pytest.raises(SystemExit) as caught:
            start(*RANDOM)
    assert caught.value.code == 130
    run = whole.with_name("vit-dyt-2")
    assert load(run / "checkpoints" / "last.ckpt")["global_step"] == stop_at

    resumed, values = start(cfg=resume(run))

    assert resumed == run
    one, other = (load(path / "checkpoints" / "last.ckpt") for path in (whole, run))
    assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])
    moments = [state["optimizer_states"][0]["state"][0]["exp_avg"] for state in (one, other)]
    assert torch.equal(*moments)
    metrics = [tag for tag in expected if "/" in tag]
    assert {tag: values[tag] for tag in metrics} == {tag: expected[tag] for tag in metrics}
    logged = [sorted(rows(path)) for path in (whole, run)]
    deterministic = [[row for row in rows_of_one if not row[1].startswith("throughput")] for rows_of_one in logged]
    assert deterministic[0] == deterministic[1]
    curves = [scalars(path)["alpha/00_blocks.0.norm1"] for path in (whole, run)]
    assert curves[0] == curves[1]


def test_a_finished_run_says_so_and_stays_as_it_is(start: Start) -> None:
    run, _ = start()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for arguments in ([], ["trainer.max_epochs=1"], ["trainer.max_steps=12"]):
        with pytest.raises(UsageError, match="that run is finished after 2 epochs, 12 steps"):
            start(cfg=resume(run, *arguments))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_finished_run_can_be_made_longer(start: Start) -> None:
    run, values = start()
    _, longer = start(cfg=resume(run, "trainer.max_epochs=3"))
    assert (values["steps"], longer["steps"]) == (12, 18)
    assert longer["seconds"] > values["seconds"]
    assert [step for step, tag, _ in rows(run) if tag == "val/acc"] == sorted({5, 11, 17})


def test_a_resume_that_breaks_leaves_the_checkpoint(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = start()
    last = (run / "checkpoints" / "last.ckpt").read_bytes()

    def break_off(*_: Any) -> None:
        raise RuntimeError("before training")

    monkeypatch.setattr(ViTTask, "on_fit_start", break_off)
    with pytest.raises(RuntimeError, match="before training"):
        start(cfg=resume(run, "trainer.max_epochs=3"))
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == last


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


def test_runs_that_cannot_be_taken_up(start: Start, tmp_path: Path) -> None:
    run, _ = start("trainer.max_epochs=1")
    with pytest.raises(UsageError, match=r"there is no run there.*; there is .*vit-dyt-1"):
        saved_config(run.with_name("vit-dyt-9"))
    with pytest.raises(UsageError, match=r"there is no checkpoint; there is .*vit-dyt-1"):
        saved_checkpoint(run.with_name("vit-dyt-9"))
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(UsageError, match=r"foreign\.ckpt: no checkpoint that train\.py wrote"):
        saved_checkpoint(foreign)
    whole = (run / "checkpoints" / "last.ckpt").read_bytes()
    for damaged in (b"", b"no checkpoint at all", b"a: 1\n", whole[:1000]):
        foreign.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"foreign\.ckpt: damaged, or no checkpoint"):
            saved_checkpoint(foreign)
