"""Many runs, one after the other or side by side: what is done stays done, and what fails or is stopped goes on."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import compare as script
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.runs import hold_run
from {{cookiecutter.package_name}}.tools.compare import launch, main, run
from {{cookiecutter.package_name}}.tools.compare.jobs import failure, last_line
from {{cookiecutter.package_name}}.tools.compare.launch import Local, visible_gpus
from {{cookiecutter.package_name}}.tools.compare.main import compare
from {{cookiecutter.package_name}}.tools.compare.report import Report
from {{cookiecutter.package_name}}.tools.compare.run import Outcome
from {{cookiecutter.package_name}}.utils import hold

from .compare_fakes import write_scripts

Compare = Callable[..., Outcome]
COMMON = ["trainer=cpu", "metric=test/acc:max"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "comparison"


@pytest.fixture
def go(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """`go("norm=dyt,ln")` compares runs that take no time, without figures."""
    monkeypatch.setattr(run, "POLL", 0.01)
    monkeypatch.setattr(Report, "figures", lambda self: {})
    scripts = write_scripts(tmp_path / "scripts")
    return lambda *argv: compare([*COMMON, f"out={out}", *argv], scripts)


def runs(out: Path) -> dict[str, Path]:
    """Directories by their names without the digest."""
    return {path.name.rpartition("-")[0]: path for path in sorted((out / "runs").iterdir())}


def argv(path: Path) -> dict[str, str]:
    return json.loads((path / "argv.json").read_text())


def test_every_combination_is_trained_once(go: Compare, out: Path) -> None:
    assert go("norm=dyt,ln", "seed=0,1", "optim.lr=0.002", "jobs=2") == Outcome()
    found = runs(out)
    assert list(found) == ["dyt-seed0", "dyt-seed1", "ln-seed0", "ln-seed1"]
    assert argv(found["ln-seed1"]) == {
        **{"norm": "ln", "seed": "1", "optim.lr": "0.002", "trainer": "cpu"},
        **{"name": found["ln-seed1"].name, "runs": str(out / "runs")},
    }
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert go("norm=dyt,ln,bn", "seed=0,1", "optim.lr=0.002") == Outcome()
    assert set(runs(out)) - set(found) == {"bn-seed0", "bn-seed1"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "6 of 6 runs finished" in (out / "report.md").read_text()


def test_other_settings_are_other_runs(go: Compare, out: Path) -> None:
    go("norm=dyt,ln")
    go("norm=dyt,ln", "model.depth=1")
    assert len(list((out / "runs").iterdir())) == 4
    report = (out / "report.md").read_text()
    assert "2 of 2 runs finished" in report
    assert "runs/ holds 2 more, of other settings, which are no part of this." in report
    assert json.loads((out / "comparison.json").read_text())["command"].endswith("norm=dyt,ln model.depth=1")


def test_one_that_fails_stops_no_other_and_is_tried_again(go: Compare, out: Path) -> None:
    outcome = go("norm=dyt,ln", "save_every_n_steps=1,0")
    assert sorted(outcome.failed.values()) == ["RuntimeError: too large"] * 2
    report = (out / "report.md").read_text()
    assert "2 of 4 runs finished, 2 failed." in report
    assert "RuntimeError: too large" in report.partition("## Failed")[2]
    name = next(iter(outcome.failed))
    assert "Traceback" in (out / "logs" / f"{name}.log").read_text()
    train = out.parent / "scripts" / "train.py"
    train.write_text(train.read_text().replace("sys.exit(1)", "pass"))
    assert go("norm=dyt,ln", "save_every_n_steps=1,0") == Outcome()


def test_ctrl_c_saves_reports_and_goes_on(
    go: Compare, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run is done, the second waits to be stopped, and nothing further starts."""
    asked = ["norm=ln,dyt,bn", "save_every_n_steps=0,2", "jobs=1"]

    def stop(*_: object) -> None:
        if any(out.glob("runs/*/waits")):
            monkeypatch.setattr(run, "_show", lambda *_: None)  # once, since a second one kills
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(run, "_show", stop)
    monkeypatch.setattr(script, "compare", lambda argv: go(*argv))
    with pytest.raises(KeyboardInterrupt):
        script.main(asked)
    report = (out / "report.md").read_text()
    assert "1 of 6 runs finished; interrupted, and the same command goes on." in report
    assert "interrupted: the same command goes on" in capsys.readouterr().err
    stopped = next(out.glob("runs/*/waits")).parent
    assert (stopped / "checkpoints" / "last.ckpt").read_text() == "half"
    (out.parent / "scripts" / "train.py").write_text(
        (out.parent / "scripts" / "train.py").read_text().replace('what == "2"', 'what == "never"')
    )
    assert go(*asked) == Outcome()
    assert "resume" not in argv(stopped), "it went on in place"
    assert "6 of 6 runs finished." in (out / "report.md").read_text()


def test_what_was_killed_before_its_first_checkpoint_starts_anew(go: Compare, out: Path) -> None:
    go("norm=dyt,ln")
    left = runs(out)["ln-seed0"]
    shutil.rmtree(left)
    (left / "checkpoints").mkdir(parents=True)
    (left / "config.yaml").write_text("task: {}\n")
    assert go("norm=dyt,ln") == Outcome()
    assert argv(left)["name"] == left.name


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["norm=dyt,lm"], "norm=lm: there is no such norm"),
        (["norm=dyt,ln", "jobs=-1"], "jobs=-1: expected at least 1"),
        (["norm=dyt,ln", "launcher=cloud"], "launcher=cloud: choose local or slurm"),
        (["norm=dyt,ln", "slurm.partition=gpu"], "slurm.partition: it wants launcher=slurm"),
        (["norm=dyt,ln", "baseline=bn"], "baseline=bn: expected one of norm=dyt, norm=ln"),
        (["norm=dyt,ln", "metric=test/x"], "metric=test/x: expected a tag and which way is better"),
        (["norm=dyt,ln", "shift=nothing"], "shift=nothing: for data="),
        (["norm=dyt,ln", "trainer.devices=2", "jobs=2"], "jobs=2: a run takes several devices here"),
        ([], "give some key several values"),
    ],
)
def test_refusals_leave_nothing(tmp_path: Path, asked: list[str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        compare([*asked, f"out={tmp_path / 'out'}"])
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_stays_as_it_is(go: Compare, out: Path) -> None:
    out.mkdir()
    (out / "report.md").write_text("mine")
    with pytest.raises(UsageError, match="it holds other things than a comparison"):
        go("norm=dyt,ln")
    assert [path.name for path in out.iterdir()] == ["report.md"]


def test_an_error_of_its_own_stops_what_runs(go: Compare, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the reader of its output has gone, or the disk is full."""

    handles = []

    def fail(bars: object, one: Any) -> None:
        if any(out.glob("runs/*/waits")):
            handles.append(one.handle)
            raise OSError("no space")

    monkeypatch.setattr(run, "_show", fail)
    with pytest.raises(OSError, match="no space"):
        go("norm=ln", "save_every_n_steps=2")
    assert handles[0]._process.wait(timeout=20) == 130
    assert any(out.glob("runs/*/checkpoints/last.ckpt")), "it was asked to save"


def test_two_at_work_in_one_folder(go: Compare, out: Path) -> None:
    with hold(out, "", ""), pytest.raises(UsageError, match="another comparison is at work there"):
        go("norm=dyt,ln")


def test_what_a_killed_comparison_left_training_is_let_alone(go: Compare, out: Path) -> None:
    go("norm=dyt,ln")
    left = runs(out)["ln-seed0"]
    (left / "summary.json").unlink()
    with hold_run(left), pytest.raises(UsageError, match=f"{left.name}: another process trains this run"):
        go("norm=dyt,ln")
    assert (left / "argv.json").exists()
    assert go("norm=dyt,ln") == Outcome()


def test_a_finished_run_without_the_metric_is_told(go: Compare, out: Path) -> None:
    outcome = go("norm=dyt,ln", "metric=test/f1:max")
    assert set(outcome.failed.values()) == {"it has no test/f1; it has test/acc, test/loss, val/acc"}
    assert "0 of 2 runs finished, 2 failed." in (out / "report.md").read_text()


def test_shift_is_measured_of_every_run_once(
    go: Compare, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "shift_of", lambda cfg, name: None)  # whatever family this is
    go("norm=dyt,ln")
    assert go("norm=dyt,ln", "shift=corruptions") == Outcome()
    files = sorted(out.glob("runs/*/shift-corruptions.json"))
    assert len(files) == 2
    before = [file.stat().st_mtime_ns for file in files]
    go("norm=dyt,ln", "shift=corruptions")
    assert [file.stat().st_mtime_ns for file in files] == before
    (out.parent / "scripts" / "evaluate.py").write_text("import sys; sys.exit('error: no such shift')")
    outcome = go("norm=dyt,ln", "shift=others")
    assert set(outcome.failed.values()) == {"error: no such shift"}
    assert "2 of 2 runs finished, 2 failed." in (out / "report.md").read_text()
    assert str(out / "logs" / f"{next(iter(outcome.failed))}.shift.log") in capsys.readouterr().out
    one = next(out.glob("runs/*/summary.json"))
    one.write_text(json.dumps(json.loads(one.read_text()) | {"diverged": True}))  # so that there is nothing to measure
    assert len(go("norm=dyt,ln", "shift=others").failed) == 1


def test_slots_share_gpus_and_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launch, "cpu_count", lambda: 8)
    local = Local(3, ["4", "6"])
    assert [local.settings(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4", "6", "4"]
    assert local.settings(0)["OMP_NUM_THREADS"] == "2"
    assert Local(1, []).settings(0) == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Local(2, []).settings(1) == {}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert visible_gpus() == ["3", "GPU-5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]


def test_why_a_command_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert failure(1, log) == "it ended with status 1 and printed nothing"
    log.write_text("one\n\x1b[31mlast\x1b[0m  \n\n")
    assert (last_line(log), failure(1, log)) == ("last", "last")
    assert failure(-9, log) == "killed by SIGKILL, out of memory perhaps"
    assert failure(-11, log) == "killed by SIGSEGV"


def test_slurms_launcher_on_this_machine(go: Compare, out: Path) -> None:
    pytest.importorskip("submitit")
    slurm = ["launcher=slurm", "slurm.cluster=local", "slurm.partition=gpu"]
    outcome = go("norm=dyt,ln", "save_every_n_steps=0,1", *slurm)
    assert set(outcome.failed.values()) == {"RuntimeError: too large"}
    assert "2 of 4 runs finished, 2 failed." in (out / "report.md").read_text()
    with pytest.raises(UsageError, match=r"Unknown argument 'partitoin'"):
        go("norm=dyt,ln", "launcher=slurm", "slurm.cluster=local", "slurm.partitoin=gpu")
