"""compare.py: finished runs stay, what fails or is stopped is resumed, and wrong options write nothing."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import compare as script
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.runs import lock_run
from {{cookiecutter.package_name}}.tools.compare import figures, jobs, main
from {{cookiecutter.package_name}}.tools.compare.jobs import Outcome
from {{cookiecutter.package_name}}.tools.compare.main import ROOT, compare
from {{cookiecutter.package_name}}.utils import lock_folder

from ...runs import Tiny
from .fakes import FakeLauncher, Handle

Compare = Callable[..., Outcome]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "comparison"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLauncher:
    launcher = FakeLauncher()
    monkeypatch.setattr(main, "_launcher", lambda *_: launcher)
    monkeypatch.setattr(jobs, "POLL", 0.001)
    monkeypatch.setattr(figures, "draw", lambda comparison: {})
    return launcher


@pytest.fixture
def go(fake: FakeLauncher, out: Path) -> Compare:
    """`go("norm=dyt,ln")` compares runs that take no time, without figures."""
    return lambda *argv: compare(["metric=test/acc:max", f"out={out}", *argv])


def runs(out: Path) -> dict[str, Path]:
    """Directories by their names without the digest."""
    return {path.name.rpartition("-")[0]: path for path in sorted((out / "runs").iterdir())}


def report(out: Path) -> str:
    return (out / "report.md").read_text()


def test_every_combination_is_trained_once(go: Compare, out: Path, fake: FakeLauncher) -> None:
    assert go("norm=dyt,ln", "seed=0,1", "optim.lr=0.002") == Outcome()
    found = runs(out)
    assert list(found) == ["dyt-seed0", "dyt-seed1", "ln-seed0", "ln-seed1"]
    assert fake.started[-1] == {
        **{"script": "train", "norm": "ln", "seed": "1", "optim.lr": "0.002"},
        **{"name": found["ln-seed1"].name, "runs": str(out / "runs")},
    }
    assert go("norm=dyt,ln,bn", "seed=0,1", "optim.lr=0.002") == Outcome()
    assert [one["norm"] for one in fake.started] == ["dyt", "ln", "dyt", "ln", "bn", "bn"]
    assert "6 of 6 runs finished" in report(out)


def test_other_settings_are_other_runs(go: Compare, out: Path) -> None:
    go("norm=dyt,ln")
    go("norm=dyt,ln", "model.depth=1")
    assert len(runs(out)) == 2
    assert len(list((out / "runs").iterdir())) == 4
    assert "2 of 2 runs finished" in report(out)
    assert "2 more" in report(out)
    assert json.loads((out / "comparison.json").read_text())["command"].endswith("norm=dyt,ln model.depth=1")


def test_a_failed_run_stops_no_other_and_is_tried_again(go: Compare, out: Path, fake: FakeLauncher) -> None:
    fake.fails = {"dyt"}
    outcome = go("norm=dyt,ln", "seed=0,1")
    assert list(outcome.failed.values()) == ["RuntimeError: too large"] * 2
    assert "2 of 4 runs finished, 2 failed." in report(out)
    assert "RuntimeError: too large" in report(out).partition("## Failed")[2]
    fake.fails = set()
    assert go("norm=dyt,ln", "seed=0,1") == Outcome()


def test_ctrl_c_saves_and_the_same_command_resumes(
    go: Compare, out: Path, fake: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run is finished, the second one is stopped, and no further one starts."""
    fake.slots, fake.waits = 1, {"dyt"}
    stopped: list[int] = []

    def poll(handle: Handle) -> int | None:
        if handle.status is None and not stopped:
            stopped.append(1)
            signal.raise_signal(signal.SIGINT)
        return handle.status

    monkeypatch.setattr(Handle, "poll", poll)
    outcome = go("norm=ln,dyt,bn")
    assert outcome == Outcome(interrupted=True)
    assert "1 of 3 runs finished; interrupted" in report(out)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    fake.waits = set()
    assert go("norm=ln,dyt,bn", "data.workers=1") == Outcome()
    assert [list(one)[1:] for one in fake.started[2:]] == [
        ["resume", "data.workers"],
        ["norm", "data.workers", "name", "runs"],
    ]
    assert "3 of 3 runs finished." in report(out)


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(go: Compare, out: Path) -> None:
    go("norm=dyt,ln")
    left = runs(out)["ln-seed0"]
    shutil.rmtree(left)
    (left / "checkpoints").mkdir(parents=True)
    assert go("norm=dyt,ln") == Outcome()
    assert "2 of 2 runs finished." in report(out)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["norm=dyt,lm"], "norm=lm"),
        (["norm=dyt,ln", "jobs=-1"], "jobs=-1"),
        (["norm=dyt,ln", "launcher=cloud"], "launcher=cloud"),
        (["norm=dyt,ln", "slurm.partition=gpu"], "launcher=slurm"),
        (["norm=dyt,ln", "baseline=bn"], "baseline=bn"),
        (["norm=dyt,ln", "metric=test/x"], "metric=test/x"),
        (["norm=dyt,ln", "shift=nothing"], "shift=nothing"),
        (["norm=dyt,ln", "trainer.devices=2", "jobs=2"], "jobs=2"),
        ([], "norm=dyt,ln"),
    ],
)
def test_wrong_options_write_nothing(out: Path, asked: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        compare([*asked, f"out={out}"])
    assert words in str(caught.value)
    assert not out.exists()


def test_a_folder_with_other_files_is_left_alone(go: Compare, out: Path) -> None:
    out.mkdir()
    (out / "report.md").write_text("mine")
    with pytest.raises(UsageError, match="other files"):
        go("norm=dyt,ln")
    assert [path.name for path in out.iterdir()] == ["report.md"]


def test_one_process_at_a_time(go: Compare, out: Path) -> None:
    with lock_folder(out, "", ""), pytest.raises(UsageError, match="another comparison"):
        go("norm=dyt,ln")
    go("norm=dyt,ln")
    left = runs(out)["ln-seed0"]  # still training, after its comparison was killed
    (left / "summary.json").unlink()
    with lock_run(left), pytest.raises(UsageError, match="another process"):
        go("norm=dyt,ln")
    assert left.exists()


def test_a_finished_run_without_the_metric_counts_as_failed(go: Compare, out: Path) -> None:
    outcome = go("norm=dyt,ln", "metric=test/f1:max")
    assert len(outcome.failed) == 2
    assert "0 of 2 runs finished, 2 failed." in report(out)


def test_shift_is_measured_once_for_every_run(
    go: Compare, out: Path, fake: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "shift_of", lambda cfg, name: None)  # for any family
    go("norm=dyt,ln")
    summary = runs(out)["ln-seed0"] / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"diverged": True}))  # nothing to measure there
    for _ in range(2):
        assert go("norm=dyt,ln", "shift=corruptions") == Outcome()
    evaluated = {"script": "evaluate", "checkpoint": str(runs(out)["dyt-seed0"]), "shift": "corruptions"}
    assert fake.started[2:] == [evaluated]


def test_exit_status(go: Compare, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script.main(["--help"])
    assert "baseline=" in capsys.readouterr().out
    monkeypatch.setattr(script, "compare", lambda argv: Outcome({"a": "b"}))
    with pytest.raises(SystemExit) as caught:
        script.main(["norm=dyt,ln"])
    assert caught.value.code == 1
    monkeypatch.setattr(script, "compare", lambda argv: Outcome(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        script.main(["norm=dyt,ln"])


@pytest.mark.slow
def test_real_runs(tiny: Tiny, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run succeeds and one diverges; then the first is resumed as if it had been stopped in its test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    argv = [*tiny.argv, "norm=dyt", "trainer=cpu", "trainer.max_epochs=1", f"out={out}"]
    assert compare([*argv, "optim.lr=1e-3,1e30", "jobs=2"]) == Outcome()
    assert "1 of its runs diverged" in report(out)
    assert (out / "figures" / "curves.png").is_file()
    run = runs(out)["dyt-lr1e_3-seed0"]
    before = json.loads((run / "summary.json").read_text())
    (run / "summary.json").unlink()
    assert compare([*argv, "optim.lr=1e-3"]) == Outcome()
    after = json.loads((run / "summary.json").read_text())
    tests = [tag for tag in before if tag.startswith("test/")]
    assert tests
    assert {tag: after[tag] for tag in tests} == {tag: before[tag] for tag in tests}
    assert after["steps"] == before["steps"]


@pytest.mark.slow
def test_ctrl_c_on_a_real_run(tiny: Tiny, out: Path) -> None:
    argv = [*tiny.argv, "norm=dyt", "trainer=cpu", "trainer.max_epochs=10000", f"out={out}"]
    process = subprocess.Popen([sys.executable, str(ROOT / "compare.py"), *argv])
    while not list(out.glob("runs/*/checkpoints/*")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert list(out.glob("runs/*/checkpoints/last.ckpt"))
    assert "interrupted" in report(out)
