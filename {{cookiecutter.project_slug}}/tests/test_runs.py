"""Whole runs, as `train.py` and `evaluate.py` make them."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
import train
from {{cookiecutter.package_name}} import fit
from {{cookiecutter.package_name}}.build import build_net
from {{cookiecutter.package_name}}.config import compose, plain, recompose
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.norms import names
from {{cookiecutter.package_name}}.runs import RUN_DIR, saved_checkpoint
from {{cookiecutter.package_name}}.tasks.base import Task
from {{cookiecutter.package_name}}.tasks.vit import ViTTask

from .conftest import TINY

Start = Callable[..., tuple[Path, dict[str, Any]]]
ROOT = Path(__file__).parents[1]


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def rows(run: Path) -> list[tuple[int, str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), row["tag"], float(row["value"])) for row in csv.DictReader(file)]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("norm", [name for name in names() if name != "none"])
def test_every_norm_learns(start: Start, norm: str) -> None:
    run, values = start(
        f"norm={norm}", "trainer.limit_train_batches=1.0", "trainer.max_epochs=4", "monitor.every_n_steps=0"
    )
    losses = [value for _, tag, value in rows(run) if tag == "val/loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * math.log(10), "the loss of knowing nothing about ten classes"
    assert values["test/acc"] > 0.4, "chance is 0.1"


def test_a_run_directory_holds_everything(start: Start) -> None:
    run, values = start("norm=derf")
    assert run.name == "vit-derf-1"
    assert {path.name for path in run.iterdir() if "tfevents" not in path.name} == {
        *("config.yaml", "metrics.csv", "summary.json", "alpha.png", "checkpoints"),
    }
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}

    summary = json.loads((run / "summary.json").read_text())
    assert summary["test/acc"] == values["test/acc"]
    assert (summary["steps"], summary["seed"], summary["norm"]["name"]) == (12, 0, "derf")
    assert {"val/acc", "test/loss", "seconds", "samples_per_second", "parameters", "peak_memory_bytes"} <= set(summary)
    assert {"versions", "git"} <= set(summary)
    assert summary["samples_per_second"] > 0

    again, _ = start("norm=derf")
    assert again.name == "vit-derf-2"


def test_checkpoints_are_plain_and_say_how_they_were_made(start: Start) -> None:
    run, _ = start("ema.decay=0.9")
    checkpoint = load(run / "checkpoints" / "last.ckpt")
    assert checkpoint["config"] == plain(compose([*TINY, "ema.decay=0.9", f"runs={run.parent}"]))
    keys = set(checkpoint["state_dict"])
    assert "net.blocks.1.norm2.alpha" in keys
    assert "ema.blocks.1.norm2.alpha" in keys
    assert not [key for key in keys if "_orig_mod" in key]


def test_alpha_of_every_layer_is_in_the_events(start: Start) -> None:
    run, _ = start("norm=derf")
    found = scalars(run)
    layers = ["00_blocks.0.norm1", "01_blocks.0.norm2", "02_blocks.1.norm1", "03_blocks.1.norm2", "04_fc_norm"]
    for quantity in ("alpha", "shift", "input_std", "inverse_std", "saturated"):
        assert [tag for tag in found if tag.startswith(f"{quantity}/")] == [f"{quantity}/{layer}" for layer in layers]
    steps = [step for step, _ in found["alpha/00_blocks.0.norm1"]]
    assert steps == [0, 4, 8, 12], "every 4 steps, and at the end"
    last = load(run / "checkpoints" / "last.ckpt")["state_dict"]
    for layer in layers:
        name = layer.partition("_")[2]
        assert found[f"alpha/{layer}"][-1][1] == pytest.approx(last[f"net.{name}.alpha"].item())
    assert {"train/loss", "train/grad_norm", "lr", "val/loss", "val/acc", "test/acc"} <= set(found)
    assert "throughput/samples_per_second" in found


def test_evaluate_prints_what_train_printed(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    run, values = start("norm=bn", "ema.decay=0.9")
    file, config = saved_checkpoint(run)
    assert file == run / "checkpoints" / "best.ckpt"
    again = fit.evaluate(recompose(config, [], anew=(), free=()), file, "test")
    assert set(again) == {"test/loss", "test/acc", "test/acc5"}
    for tag, value in again.items():
        assert value == pytest.approx(values[tag], abs=1e-6)


def test_evaluate_keeps_the_precision_of_the_run(start: Start) -> None:
    run, values = start("trainer.precision=bf16-mixed")
    kept = evaluate.main([f"checkpoint={run}"])
    assert kept["test/loss"] == pytest.approx(values["test/loss"], abs=1e-6)
    full = evaluate.main([f"checkpoint={run}", "trainer.precision=32-true"])
    assert abs(full["test/loss"] - values["test/loss"]) > 1e-6, "or this test cannot see a difference"


def test_accumulated_gradients_make_the_same_step(start: Start) -> None:
    """One step of 32 images, and two passes of 16: the mean of the means."""
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

    def look(task: Task, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad.norm() for p in task.net.parameters() if p.grad is not None]
        if gradients:  # there are none before the first backward
            seen.append(torch.stack(gradients).norm().item())

    monkeypatch.setattr(ViTTask, "on_before_zero_grad", look)
    run, _ = start("optim.clip_norm=0.1", "trainer.max_epochs=1")
    logged = [value for _, tag, value in rows(run) if tag == "train/grad_norm"]
    assert max(seen) == pytest.approx(0.1, rel=1e-3)
    assert min(logged) > 0.1, "what is logged is the norm before clipping"


def test_the_average_of_the_net_by_the_formula(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history: list[torch.Tensor] = []
    step = Task.optimizer_step

    def record(task: Task, *args: Any, **kwargs: Any) -> None:
        step(task, *args, **kwargs)
        history.append(task.net.head.weight.detach().clone())

    monkeypatch.setattr(Task, "optimizer_step", record)
    cfg = compose([*TINY, "ema.decay=0.6", "trainer.max_epochs=1", f"runs={tmp_path}"])
    initial = build_net(cfg).get_parameter("head.weight").detach()
    run, _ = start(cfg=cfg)
    average = initial
    for n, weight in enumerate(history, start=1):
        decay = min(0.6, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weight
    stored = load(run / "checkpoints" / "last.ckpt")["state_dict"]["ema.head.weight"]
    torch.testing.assert_close(stored, average)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["norm=nothing"], "there is no such norm"),
        (["model.num_heads=5"], "model.num_heads=5: it does not divide the width 96"),
        (["norm.alpha0=-1"], "alpha0=-1: expected a number above 0"),
        (["data=folder", "data.root=nowhere"], "data.root=nowhere"),
        (["resume=runs/nothing"], "resume=runs/nothing: there is no run there"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0: expected at least 1"),
        (["trainer.precision=17"], "trainer: "),
        (["optim.lr=-1"], "optim.lr=-1: expected 0 or more"),
        (["schedule.warmup_steps=100000"], "a warm-up of 100000 steps leaves nothing"),
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


@pytest.mark.parametrize(
    ("script", "arguments"), [("train.py", ["optim.lrr=1"]), ("evaluate.py", ["checkpoint=nowhere"])]
)
def test_the_command_line_gets_one_line_and_status_two(script: str, arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / script), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")


def test_a_compiled_net_trains_and_keeps_its_names(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_eagerly(module: torch.nn.Module) -> None:
        compiled.append(module)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    plain_run, expected = start("ema.decay=0.9", "trainer.max_epochs=1")
    run, values = start("compile=true", "ema.decay=0.9", "trainer.max_epochs=1")
    assert len(compiled) == 2, "the net and its average"
    one, other = (load(path / "checkpoints" / "last.ckpt")["state_dict"] for path in (plain_run, run))
    assert one.keys() == other.keys()
    assert values["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_sixteen_bits_keep_alpha_in_thirty_two(start: Start, precision: str) -> None:
    run, _ = start(f"trainer.precision={precision}", "ema.decay=0.0", "trainer.max_epochs=1")
    weights = load(run / "checkpoints" / "last.ckpt")["state_dict"]
    assert weights["net.fc_norm.alpha"].dtype == torch.float32
    assert weights["net.head.weight"].dtype == (torch.bfloat16 if precision == "bf16-true" else torch.float32)
    assert not torch.equal(weights["net.fc_norm.alpha"], weights["net.fc_norm.alpha"].bfloat16().float())


def test_training_says_nothing_on_stderr(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "trainer.max_epochs=1", f"runs={tmp_path}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("epoch     1/1") == 1


def test_no_validation_images_no_best_checkpoint(start: Start) -> None:
    run, values = start("data.val_fraction=0.0", "trainer.max_epochs=1")
    assert "test/acc" in values
    assert saved_checkpoint(run)[0].name == "last.ckpt"
    file, config = saved_checkpoint(run)
    with pytest.raises(UsageError, match="split=val: the data have no such images"):
        fit.evaluate(recompose(config, [], anew=(), free=()), file, "val")
