"""Commands of this machine and of SLURM."""

import sys
import time
from pathlib import Path

import pytest

from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.tools.compare import jobs
from {{cookiecutter.package_name}}.tools.compare.jobs import (
    Job,
    Local,
    Process,
    Slurm,
    SlurmJob,
    failure,
    last_line,
    visible_gpus,
)

WAIT = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
print("ready", flush=True)
time.sleep(60)
"""


def job(folder: Path, code: str) -> Job:
    return Job("run", [sys.executable, "-c", code], folder / "result", folder / "log")


def ended(handle: Process | SlurmJob) -> int:
    while (status := handle.poll()) is None:
        time.sleep(0.05)
    return status


def test_slots_share_gpus_and_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(jobs, "cpu_count", lambda: 8)
    local = Local(3, ["4", "6"])
    assert [local.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4", "6", "4"]
    assert local.environment(0)["OMP_NUM_THREADS"] == "2"
    assert Local(1).environment(0) == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Local(2).environment(1) == {}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert visible_gpus() == ["3", "GPU-5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]


def test_why_a_command_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert "status 1" in failure(1, log)
    log.write_text("one\n\x1b[31mlast\x1b[0m  \n\n")
    assert (last_line(log), failure(1, log)) == ("last", "last")
    assert "signal 9" in failure(-9, log)


@pytest.mark.parametrize(("kill", "status"), [(False, 130), (True, -9)])
def test_a_process_is_stopped(tmp_path: Path, kill: bool, status: int) -> None:
    one = job(tmp_path, WAIT)
    process = Local(2).start(one, 0)
    while last_line(one.log) != "ready":
        time.sleep(0.05)
    process.stop(kill)
    assert ended(process) == status


@pytest.mark.slow
def test_slurm_by_submitits_local_executor(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    slurm = Slurm(1, {"cluster": "local", "partition": "gpu"}, tmp_path / "slurm")
    assert ended(slurm.start(job(tmp_path, "print('hello')"), 0)) == 0
    assert last_line(tmp_path / "log") == "hello"
    assert ended(slurm.start(job(tmp_path, "raise SystemExit(3)"), 0)) == 3
    with pytest.raises(UsageError, match="partitoin"):
        Slurm(1, {"cluster": "local", "partitoin": "gpu"}, tmp_path / "slurm")
