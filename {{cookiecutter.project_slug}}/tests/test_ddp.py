"""Two processes against one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.models.base import BaseModule
from {{cookiecutter.package_name}}.runs import RUN_DIR
from {{cookiecutter.package_name}}.train import build_data, build_module

from .conftest import each_family
from .models.test_pretrained import FEW, configured, initialised
from .runs import ROOT, Start, Tiny, load, rows, scalars
from .stop_and_go import assert_both_equal, stop_and_go

ONE_STEP = ["trainer.max_epochs=1", "trainer.limit_train_batches=1"]


@pytest.fixture(scope="module")
def two_processes(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of `python train.py trainer=ddp_cpu`, one step."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, str(ROOT / "train.py"), *tiny.argv, *ONE_STEP, "trainer=ddp_cpu", "monitor.samples=16"]
    env = {key: value for key, value in os.environ.items() if key != RUN_DIR}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("result") == done.stdout.count("step 1/1") == 1, "one process speaks for both"
    (run,) = (folder / "runs").iterdir()
    return run


@each_family
def test_gradients_are_those_of_one_process(two_processes: Path, start: Start) -> None:
    alone, _ = start(*ONE_STEP, "monitor.samples=32")
    # after one step of AdamW the running mean of the gradient is (1 - beta1) times the gradient
    two, one = (
        load(run / "checkpoints" / "last.ckpt")["optimizer_states"][0]["state"] for run in (two_processes, alone)
    )
    assert len(one) == len(two) > 20
    for key in one:
        torch.testing.assert_close(two[key]["exp_avg"], one[key]["exp_avg"], rtol=1e-4, atol=1e-7)


@each_family
def test_curves_are_those_of_one_process(two_processes: Path, start: Start) -> None:
    """The monitor sees the samples of both, the metrics every sample once, and each value is written once."""
    alone, _ = start(*ONE_STEP, "monitor.samples=32")
    ours, theirs = ({(step, tag): value for step, tag, value in rows(run)} for run in (two_processes, alone))
    assert set(ours) == set(theirs)
    assert len(rows(two_processes)) == len(ours)
    watched = [key for key in ours if key[1].partition("/")[0] in ("alpha", "input_std", "saturated", "val", "test")]
    assert len(watched) > 15
    for key in watched:
        assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-6), key
    assert len(list(two_processes.glob("*tfevents*"))) == len(list(alone.glob("*tfevents*")))
    assert scalars(two_processes).keys() == scalars(alone).keys()


@pytest.mark.slow
def test_a_resumed_run_equals_one_that_never_stopped(tiny: Tiny, tmp_path: Path) -> None:
    assert_both_equal(stop_and_go(tiny, tmp_path, "trainer=ddp_cpu"))


@pytest.mark.slow
def test_both_begin_from_the_same_trained_net(tiny: Tiny, tmp_path: Path) -> None:
    """Each fits the norms for itself, before DDP hands the first one's weights to all."""
    cfg = configured(tiny, "norm=ln", "seed=1")
    build_data(cfg)
    old = {"config": plain(cfg), "global_step": 0, "state_dict": build_module(cfg).state_dict()}
    torch.save(old, tmp_path / "old.ckpt")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch\n"
        f"from {BaseModule.__module__} import BaseModule\n"
        "import train\n"
        "def keep(task, when):\n"
        "    torch.save(task.state_dict(), f'{when}{task.global_rank}.pt')\n"
        "BaseModule.setup = lambda task, stage: stage == 'fit' and keep(task, 'alone')\n"
        "BaseModule.on_train_start = lambda task: keep(task, 'wrapped')\n"
        "train.main(sys.argv[1:])\n"
    )
    argv = [*tiny.argv, *ONE_STEP, "norm=dyt", f"init={tmp_path / 'old.ckpt'}", *FEW, "ema.decay=0.9"]
    command = [sys.executable, str(script), *argv, "trainer=ddp_cpu", "monitor.every_n_steps=0"]
    env = {key: value for key, value in os.environ.items() if key != RUN_DIR} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("norms replaced") == 1, "one process speaks for both"
    expected = initialised(compose([*argv, "trainer=cpu"]))[0].state_dict()
    for file in (f"{when}{rank}.pt" for when in ("alone", "wrapped") for rank in range(2)):
        found = load(tmp_path / file)
        assert expected.keys() == found.keys()
        assert all(torch.equal(tensor, found[key]) for key, tensor in expected.items()), file


@pytest.mark.slow
def test_an_error_on_one_rank_ends_both(tiny: Tiny, tmp_path: Path) -> None:
    """A checkpoint of one rank would wait for the other, which waits for its gradients."""
    script = tmp_path / "broken.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"from {BaseModule.__module__} import BaseModule\n"
        "import train\n"
        "def fail(self, batch, batch_idx):\n"
        "    if batch_idx == 2 and self.global_rank == 1:\n"
        "        raise OSError('one bad sample')\n"
        "BaseModule.on_train_batch_start = fail\n"
        "train.main(sys.argv[1:])\n"
    )
    command = [sys.executable, str(script), *tiny.argv, "trainer=ddp_cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode != 0
    assert "one bad sample" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "name"), [(0, "SIGINT"), (1, "SIGTERM")])
def test_a_signal_to_one_rank_stops_both(tiny: Tiny, tmp_path: Path, rank: int, name: str) -> None:
    """They agree on the step, and the first one saves it."""
    script = tmp_path / "signalled.py"
    script.write_text(
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"from {BaseModule.__module__} import BaseModule\n"
        "import train\n"
        "def stop(self, *_):\n"
        f"    if self.trainer.global_step == 3 and self.global_rank == {rank}:\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "BaseModule.on_train_batch_end = stop\n"
        "train.main(sys.argv[1:])\n"
    )
    command = [sys.executable, str(script), *tiny.argv, "trainer=ddp_cpu"]
    env = {key: value for key, value in os.environ.items() if key != RUN_DIR} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 130, done.stderr
    assert done.stdout.count("stopped at step 3") == 1
    (last,) = tmp_path.glob("runs/*/checkpoints/last.ckpt")
    assert load(last)["global_step"] == 3
