"""A run of two processes that never stops, and once more from its middle."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from {{cookiecutter.package_name}}.runs import RUN_DIR, load_checkpoint
from {{cookiecutter.package_name}}.train import train

from .runs import ROOT, Tiny, rows

ARGV = ["checkpoint.every_n_steps=4", "ema.decay=0.9", "optim.clip_norm=0.5", "monitor.samples=16"]

SCRIPT = """
import os, shutil
import torch

last = Path("runs/whole/checkpoints/last.ckpt")
run = last.parents[1]
rank = int(os.environ.get("LOCAL_RANK", 0))

def keep(task, *_):
    if rank == 0 and task.trainer.global_step == 4 and not Path("middle").exists():
        shutil.copyfile(last, "middle")

BaseModule.on_train_batch_start = keep
train(compose([*sys.argv[1:], "name=whole"]))
if rank == 0:
    shutil.copytree(run, "first")
    shutil.copyfile("middle", last)
torch.distributed.barrier()
train(recompose(resumed_run(run)[1], [f"resume={run}"], ("trainer", "logger"), RESUMABLE))
"""


def stop_and_go(tiny: Tiny, folder: Path, *argv: str, before: str = "", after: str = "") -> Path:
    """Runs SCRIPT in `folder`, where `first` is then the run in one go, `middle` its checkpoint, and `runs/whole`
    what became of that; with more of a script before and after it."""
    package = train.__module__.partition(".")[0]
    names = {
        "config": "compose, recompose",
        "train": "evaluate, train",
        "runs": "RESUMABLE, evaluable, load_checkpoint, resumed_run",
        "models.base": "BaseModule",
    }
    imports = [f"from {package}.{module} import {wanted}" for module, wanted in names.items()]
    head = ["import sys", "from pathlib import Path", f"sys.path.insert(0, {str(ROOT)!r})", *imports]
    script = folder / "script.py"
    script.write_text("\n".join([*head, before, SCRIPT, after]))
    command = [sys.executable, str(script), *tiny.argv, *ARGV, *argv]
    env = {key: value for key, value in os.environ.items() if key != RUN_DIR} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


def assert_both_equal(folder: Path) -> None:
    """To the last bit, in weights and curves."""
    runs = folder / "first", folder / "runs" / "whole"
    checkpoints = folder / "middle", *(run / "checkpoints" / "last.ckpt" for run in runs)
    middle, *ends = (load_checkpoint(checkpoint, "cpu") for checkpoint in checkpoints)
    assert [state["global_step"] for state in (middle, *ends)] == [4, 12, 12]
    one, other = (state["state_dict"] for state in ends)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], middle["state_dict"][name]) for name in one)
    logged = [[row for row in sorted(rows(run)) if not row[1].startswith("throughput")] for run in runs]
    assert logged[0] == logged[1]
