"""`evaluate.py shift=...` on a run of each family."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import evaluate
from {{cookiecutter.package_name}} import train as fit
from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.models import get_family
from {{cookiecutter.package_name}}.tools.robustness.evaluate import shifts

from ...conftest import FAMILIES, each_family
from ...runs import ROOT, Tiny

METRICS = {tiny.family: get_family(tiny.family).shift_metric for tiny in FAMILIES}
MEASURED = [tiny for tiny in FAMILIES if METRICS[tiny.family]]
SHORT = ["trainer.limit_test_batches=2", "trainer.limit_val_batches=1"]


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    handler = signal.getsignal(signal.SIGINT)
    runs = tmp_path_factory.mktemp("runs")
    argv = ["norm=ln", "trainer.max_epochs=1"]  # six steps tell, with every family, under a normaliser
    yield fit.train(compose([*tiny.argv, *SHORT, f"runs={runs}", *argv]))[0]
    signal.signal(signal.SIGINT, handler)


def shift_of(tiny: Tiny) -> str:
    return shifts()[compose(tiny.argv).data.module].NAME


def files_of(run: Path) -> set[str]:
    return {str(file.relative_to(run)) for file in run.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize("tiny", MEASURED[:1], ids=str, indirect=True)
def test_two_processes_measure_what_one_does(
    run: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the first kind, which for the default family is noise."""
    name = shift_of(tiny)
    for part in shifts().values():
        monkeypatch.setattr(part, "KINDS", part.KINDS[:1])
    alone = evaluate.main([f"checkpoint={run}", f"shift={name}"])
    script = tmp_path / "one_kind.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import evaluate\n"
        "from {{cookiecutter.package_name}}.tools.robustness.evaluate import shifts\n"
        "for part in shifts().values():\n"
        "    part.KINDS = part.KINDS[:1]\n"
        "evaluate.main(sys.argv[1:])\n"
    )
    command = [sys.executable, str(script), f"checkpoint={run}", f"shift={name}", "trainer=ddp_cpu"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written:") == 1
    together = json.loads((run / f"shift-{name}.json").read_text(encoding="utf-8"))
    assert together["samples"] == alone["samples"]
    ((kind, values),) = together["kinds"].items()
    assert values == pytest.approx(alone["kinds"][kind], rel=1e-5)
    assert len(set(values)) > 1


@pytest.mark.parametrize("tiny", MEASURED, ids=str, indirect=True)
def test_a_run_gets_a_file_and_pictures(run: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    for earlier in run.glob("shift-*"):
        earlier.unlink()
    name, before, metric = shift_of(tiny), files_of(run), METRICS[tiny.family]
    assert metric is not None
    part = shifts()[compose(tiny.argv).data.module]
    evaluate.main([f"checkpoint={run}", f"shift={name}"])
    printed, new = capsys.readouterr().out, files_of(run) - before
    left = json.loads((run / f"shift-{name}.json").read_text(encoding="utf-8"))
    assert (left["metric"], left["mode"]) == (f"test/{metric[0]}", metric[1])
    assert (left["split"], left["samples"], left["step"], left["strengths"]) == ("test", 64, 6, [1, 2, 3, 4, 5])
    assert list(left["kinds"]) == list(left["clean_by_kind"]) == list(part.KINDS)
    assert all(len(values) == 5 for values in left["kinds"].values())
    clean = evaluate.main([f"checkpoint={run}"])
    assert left["clean"] == clean[left["metric"]] == left["clean_by_kind"][part.KINDS[0]]
    assert any(value != left["clean"] for values in left["kinds"].values() for value in values)
    assert {f"shift-{name}.json", f"shift-{name}.png"} < new
    assert len(new) == 3
    assert all(kind in printed for kind in (*part.KINDS, "mean"))


@pytest.mark.parametrize("tiny", MEASURED[:1], ids=str, indirect=True)
def test_a_checkpoint_file_is_measured_and_nothing_written(
    run: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(run)
    for part in shifts().values():
        monkeypatch.setattr(part, "KINDS", part.KINDS[:1])
    file = run / "checkpoints" / "last.ckpt"
    measured = evaluate.main([f"checkpoint={file}", f"shift={shift_of(tiny)}", "split=val"])
    assert measured["metric"].startswith("val/")
    assert files_of(run) == before


@each_family
def test_refusals(run: Path, tiny: Tiny) -> None:
    name, before = shift_of(tiny), files_of(run)
    for other in ["nothing", *(part.NAME for part in shifts().values() if name != part.NAME)]:
        with pytest.raises(UsageError, match=f"shift={name}"):
            evaluate.main([f"checkpoint={run}", f"shift={other}"])
    with pytest.raises(UsageError, match="split" if tiny in MEASURED else "metric"):
        evaluate.main([f"checkpoint={run}", f"shift={name}", "split=train"])
    assert files_of(run) == before
