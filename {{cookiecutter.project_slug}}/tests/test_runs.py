"""Whole runs, as `train.py` and `evaluate.py` make them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import evaluate
import train
from {{cookiecutter.package_name}} import train as fit
from {{cookiecutter.package_name}}.callbacks.divergence import Divergence
from {{cookiecutter.package_name}}.config import compose, groups, plain, recompose
from {{cookiecutter.package_name}}.config.errors import Diverged, UsageError
from {{cookiecutter.package_name}}.models.base import BaseModule
from {{cookiecutter.package_name}}.runs import RUN_DIR, saved_checkpoint
from {{cookiecutter.package_name}}.train import build_model

from .conftest import FAMILIES, each_family
from .runs import ROOT, Start, Tiny, load, rows, scalars


def test_every_family_brings_a_tiny_run() -> None:
    """As TINY in tests/models/<family>/tiny.py, which is all that the tests of whole runs want to know of a family."""
    assert {tiny.family for tiny in FAMILIES} == set(groups()["task"])


@each_family
@pytest.mark.parametrize("norm", ["bn", "derf", "dyisru", "dyt", "isru", "ln", "rmsnorm"])
def test_every_norm_learns(start: Start, tiny: Tiny, norm: str) -> None:
    run, _ = start(f"norm={norm}", "monitor.every_n_steps=0", *tiny.training)
    losses = [value for _, tag, value in rows(run) if tag == "val/loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < tiny.learned


@each_family
def test_a_run_directory_holds_everything(start: Start, tiny: Tiny) -> None:
    run, values = start("norm=derf", "monitor.curves=first,last")
    assert run.name == f"{tiny.family}-derf-1"
    assert {path.name for path in run.iterdir() if "tfevents" not in path.name} == {
        *("config.yaml", "metrics.csv", "summary.json", "checkpoints", ".lock", *tiny.files),
        *("alpha.png", "alpha_heat_map.png", "alpha_vs_inverse_std.png", "curves.png", "norm_curves.pt"),
    }
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}

    summary = json.loads((run / "summary.json").read_text())
    for metric in tiny.metrics:
        assert summary[f"test/{metric}"] == values[f"test/{metric}"]
        assert f"val/{metric}" in summary
    assert (summary["steps"], summary["seed"], summary["norm"]["name"]) == (12, 0, "derf")
    assert {"seconds", "parameters", "peak_memory_bytes", "versions", "git"} <= set(summary)
    assert summary[f"{tiny.unit}_per_second"] > 0

    again, _ = start("norm=derf")
    assert again.name == f"{tiny.family}-derf-2"


@each_family
def test_checkpoints_are_plain_and_say_how_they_were_made(start: Start, tiny: Tiny) -> None:
    run, _ = start("ema.decay=0.9")
    checkpoint = load(run / "checkpoints" / "last.ckpt")
    assert checkpoint["config"] == plain(compose([*tiny.argv, "ema.decay=0.9", f"runs={run.parent}"]))
    keys = set(checkpoint["state_dict"])
    assert {f"{net}.{norm}.alpha" for net in ("model", "ema") for norm in tiny.norms} <= keys
    assert not [key for key in keys if "_orig_mod" in key]


@each_family
def test_alpha_of_every_layer_is_in_the_events(start: Start, tiny: Tiny) -> None:
    run, _ = start("norm=derf")
    found = scalars(run)
    layers = [f"{number:02}_{name}" for number, name in enumerate(tiny.norms)]
    for quantity in ("alpha", "shift", "input_std", "inverse_std", "saturated", "alpha_grad"):
        assert [tag for tag in found if tag.startswith(f"{quantity}/")] == [f"{quantity}/{layer}" for layer in layers]
    steps = [step for step, _ in found[f"alpha/{layers[0]}"]]
    assert steps == [0, 4, 8, 12], "every 4 steps, and at the end"
    last = load(run / "checkpoints" / "last.ckpt")["state_dict"]
    for layer, name in zip(layers, tiny.norms, strict=True):
        assert found[f"alpha/{layer}"][-1][1] == pytest.approx(last[f"model.{name}.alpha"].mean().item())
    assert {f"{stage}/{metric}" for stage in ("val", "test") for metric in tiny.metrics} <= set(found)
    assert {"train/loss", "train/grad_norm", "lr", f"throughput/{tiny.unit}_per_second"} <= set(found)


@each_family
def test_evaluate_prints_what_train_printed(start: Start, tiny: Tiny) -> None:
    run, values = start("norm=bn", "ema.decay=0.9")
    file, config = saved_checkpoint(run)
    assert file == run / "checkpoints" / "best.ckpt"
    again = fit.evaluate(recompose(config, [], anew=(), free=()), file, "test")
    for metric in tiny.metrics:
        assert again[f"test/{metric}"] == pytest.approx(values[f"test/{metric}"], abs=1e-6)


def test_evaluate_keeps_the_precision_of_the_run(start: Start) -> None:
    run, values = start("trainer.precision=bf16-mixed")
    kept = evaluate.main([f"checkpoint={run}"])
    assert kept["test/loss"] == pytest.approx(values["test/loss"], abs=1e-6)
    full = evaluate.main([f"checkpoint={run}", "trainer.precision=32-true"])
    assert abs(full["test/loss"] - values["test/loss"]) > 1e-6, "or this test cannot see a difference"


def test_accumulated_gradients_make_the_same_step(start: Start) -> None:
    """One step of 32 samples, and two passes of 16: the mean of the means."""
    common = ["optim.lr=0.0", "trainer.max_epochs=1", "norm=dyt"]
    whole, _ = start(*common)
    parts, _ = start(*common, "data.batch_size=16", "trainer.limit_train_batches=12")
    norms = [[value for _, tag, value in rows(run) if tag == "train/grad_norm"] for run in (whole, parts)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert len(norms[0]) == 6


def test_the_logged_rate_is_the_one_that_was_used(start: Start) -> None:
    """Four steps of warm-up in twelve: 1/5, 2/5, ... of the full rate, from the first step on."""
    run, _ = start("optim.lr=1.0e-3", "schedule.warmup_steps=4", "schedule.name=constant")
    rates = [value for _, tag, value in rows(run) if tag == "lr"]
    assert rates == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4] + 8 * [1e-3])


def test_gradient_norm_is_clipped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(task: BaseModule, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad.norm() for p in task.model.parameters() if p.grad is not None]
        if gradients:  # there are none before the first backward
            seen.append(torch.stack(gradients).norm().item())

    monkeypatch.setattr(BaseModule, "on_before_zero_grad", look)
    run, _ = start("optim.clip_norm=0.1", "trainer.max_epochs=1")
    logged = [value for _, tag, value in rows(run) if tag == "train/grad_norm"]
    assert max(seen) == pytest.approx(0.1, rel=1e-3)
    assert min(logged) > 0.1, "what is logged is the norm before clipping"


def a_matrix(net: torch.nn.Module) -> str:
    return next(name for name, parameter in net.named_parameters() if parameter.ndim == 2)


def test_the_average_of_the_net_by_the_formula(
    start: Start, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose([*tiny.argv, "ema.decay=0.6", "trainer.max_epochs=1", f"runs={tmp_path}"])
    net = build_model(cfg)
    name = a_matrix(net)
    history: list[torch.Tensor] = []
    step = BaseModule.optimizer_step

    def record(task: BaseModule, *args: Any, **kwargs: Any) -> None:
        step(task, *args, **kwargs)
        history.append(task.model.get_parameter(name).detach().clone())

    monkeypatch.setattr(BaseModule, "optimizer_step", record)
    run, _ = start(cfg=cfg)
    average = net.get_parameter(name).detach()
    for n, weight in enumerate(history, start=1):
        decay = min(0.6, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weight
    stored = load(run / "checkpoints" / "last.ckpt")["state_dict"][f"ema.{name}"]
    torch.testing.assert_close(stored, average)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["norm=nothing"], "there is no such norm"),
        (["norm=ln", "norm.eps=-1"], "norm.eps=-1: expected a number above 0"),
        (["resume=runs/nothing"], "resume=runs/nothing: there is no run there"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: expected 1 or more"),
        (["trainer.precision=17"], "trainer: "),
        (["optim.lr=-1"], "optim.lr=-1: expected 0 or more"),
        (["schedule.warmup_steps=100000"], "a warm-up of 100000 steps leaves nothing"),
        *(([f"task={tiny}", *arguments], words) for tiny in FAMILIES for arguments, words in tiny.refusals),
    ],
)
def test_refusals_leave_nothing_behind(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        train.main(arguments)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert RUN_DIR not in os.environ, "a later run in this process would take it for its own"


@each_family
def test_a_training_that_diverges_is_ended(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    """Its curves stay, and the checkpoints from before."""
    for every, last in (2, 4), (10, 6):  # looked at while it trains, or where it would be saved
        with pytest.raises(Diverged, match=r"^the training has diverged: at step \d+ its loss is not finite"):
            start("optim.lr=1e30", "optim.clip_norm=0", "schedule.warmup_steps=2", f"trainer.log_every_n_steps={every}")
        run = max((tmp_path / "runs").iterdir())
        assert any(tag == "lr" for _, tag, _ in rows(run)) == (every == 2)
        assert not list(run.glob("checkpoints/*"))
        summary = json.loads((run / "summary.json").read_text())
        assert summary["diverged"]
        assert summary["steps"] <= last


@pytest.mark.parametrize("losses", ["1 nan 1 nan 1 1", "nan inf 1 1 1 1", "1 1 1 1 1 nan"])
def test_a_loss_that_comes_back_ends_nothing(losses: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With loss scaling in 16 bits one batch, if it is the last, may be too large."""
    trainer = L.Trainer(logger=False, enable_progress_bar=False, enable_checkpointing=False)
    monkeypatch.setattr(L.Trainer, "precision", "16-mixed")
    divergence = Divergence(every_n_steps=4)
    divergence.setup(trainer, L.LightningModule(), "fit")
    for step, loss in enumerate(losses.split(), 1):
        trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = step
        assert trainer.global_step == step
        divergence.on_train_batch_end(trainer, L.LightningModule(), {"loss": torch.tensor(float(loss))}, None, step)
    divergence.on_train_end(trainer, L.LightningModule())


def test_an_empty_resume_is_no_new_run() -> None:
    """As `resume=$RUN` is where RUN is not set."""
    with pytest.raises(UsageError, match=r"^resume=: name a run directory, as in resume=runs/<run>$"):
        train.main(["resume="])


def test_a_compiled_net_trains_and_keeps_its_names(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_eagerly(module: torch.nn.Module) -> None:
        compiled.append(module)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    plain_run, expected = start("ema.decay=0.9", "trainer.max_epochs=1")
    run, values = start("compile=true", "ema.decay=0.9", "trainer.max_epochs=1")
    one, other = (load(path / "checkpoints" / "last.ckpt")["state_dict"] for path in (plain_run, run))
    blocks = {name.split(".")[2] for name in one if name.startswith(("model.blocks.", "model.layers."))}
    assert len(compiled) == len(set(compiled)) == 2 * len(blocks), "each in the net and in its average"
    assert one.keys() == other.keys()
    assert values["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_sixteen_bits_keep_alpha_in_thirty_two(start: Start, tiny: Tiny, precision: str) -> None:
    run, _ = start(f"trainer.precision={precision}", "ema.decay=0.0", "trainer.max_epochs=1")
    weights = load(run / "checkpoints" / "last.ckpt")["state_dict"]
    matrix = weights[f"model.{a_matrix(build_model(compose(tiny.argv)))}"]
    alpha = weights[f"model.{tiny.norms[-1]}.alpha"]
    assert matrix.dtype == (torch.bfloat16 if precision == "bf16-true" else torch.float32)
    assert alpha.dtype == torch.float32
    assert not torch.equal(alpha, alpha.bfloat16().float())


@each_family
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_share_of_the_batches_that_is_none(start: Start, tmp_path: Path, split: str) -> None:
    """Before anything is made: Lightning would look at the test's share when training is over."""
    with pytest.raises(UsageError, match=f"limit_{split}_batches=1e-05"):
        start(f"trainer.limit_{split}_batches=0.00001")
    assert not (tmp_path / "runs").exists()


def test_training_says_nothing_on_stderr(tiny: Tiny, tmp_path: Path) -> None:
    argv = [*tiny.argv, "trainer.max_epochs=1", "trainer.accelerator=cpu", f"runs={tmp_path}"]
    command = [sys.executable, str(ROOT / "train.py"), *argv]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("step 6/6") == 1
