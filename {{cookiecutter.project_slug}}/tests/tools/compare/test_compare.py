"""compare.py as a person types it, on the smallest real runs."""

import json
import re
from pathlib import Path

import pytest

import compare

from ...runs import Tiny


def test_help_lists_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    compare.main(["--help"])
    said = capsys.readouterr().out
    assert "usage: python compare.py norm=dyt,ln" in said
    assert re.search(r"baseline= +# what the others are compared to", said)


def test_what_is_finished_stays_what_broke_off_goes_on(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real run and one that cannot be; then the first as if it had been stopped in its test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    argv = [*tiny.argv, "norm=dyt", "trainer=cpu", "trainer.max_epochs=1", f"out={out}"]
    with pytest.raises(SystemExit) as caught:
        compare.main([*argv, "norm.alpha0=0.5,-1"])
    assert caught.value.code == 1
    report = (out / "report.md").read_text()
    assert "1 of 2 runs finished, 1 failed." in report
    assert re.search(r"- `dyt-alpha0_1-seed0-\w+`: error: .*alpha0=-1: expected a number above 0", report)
    (run,) = (out / "runs").iterdir()
    before = json.loads((run / "summary.json").read_text())

    (run / "summary.json").unlink()
    compare.main([*argv, "norm.alpha0=0.5"])
    after = json.loads((run / "summary.json").read_text())
    tests = [tag for tag in before if tag.startswith("test/")]
    assert tests
    assert {tag: after[tag] for tag in tests} == {tag: before[tag] for tag in tests}
    assert after["steps"] == before["steps"]
    assert "1 of 1 runs finished" in capsys.readouterr().out
