"""One directory for a run, its ranks and its restarts."""

import os
from pathlib import Path

import pytest
from omegaconf import DictConfig

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.runs import RUN_DIR, open_run

LAUNCHERS = {
    "torchrun": {"TORCHELASTIC_RUN_ID": "abc"},
    "slurm": {"SLURM_NTASKS": "16", "SLURM_PROCID": "3", "SLURM_JOB_ID": "abc"},
}


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    for name in (RUN_DIR, "TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    return compose([f"runs={tmp_path / 'runs'}", "norm=ln"])


def save_checkpoint(run: Path) -> Path:
    file = run / "checkpoints" / "last.ckpt"
    file.parent.mkdir()
    file.touch()
    return file


def test_numbers_count_up(cfg: DictConfig) -> None:
    for number in (1, 2, 3):
        with open_run(cfg) as run:
            assert run.path == Path(cfg.runs) / f"vit-ln-{number}"
            assert run.checkpoint is None


def test_a_rank_that_lightning_starts_shares_the_directory(cfg: DictConfig) -> None:
    with open_run(cfg) as run, open_run(cfg) as same:
        assert same.path == run.path.resolve()
    assert RUN_DIR not in os.environ, "the next run in this process is another"
    with open_run(cfg) as another:
        assert another.path != run.path


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_restarted_job_goes_on_in_its_directory(launcher: str, cfg: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)
    with open_run(cfg) as run:
        assert (run.path.name, run.checkpoint) == ("vit-ln-abc", None)
        file = save_checkpoint(run.path)
    with open_run(cfg) as again:
        assert (again.path, again.checkpoint) == (run.path, file)
    cfg.name = "mine"
    with open_run(cfg) as named:
        assert named.path.name == "mine"


def test_one_slurm_task_is_an_ordinary_run(cfg: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_ID": "abc"}.items():
        monkeypatch.setenv(name, value)
    with open_run(cfg) as run:
        assert run.path.name == "vit-ln-1"


def test_a_run_that_fails_at_once_leaves_nothing(cfg: DictConfig) -> None:
    with pytest.raises(RuntimeError, match="at once"), open_run(cfg) as run:
        (run.path / "config.yaml").touch()
        raise RuntimeError("at once")
    assert not run.path.exists()


def test_a_run_that_fails_later_keeps_what_it_has(cfg: DictConfig) -> None:
    with pytest.raises(RuntimeError, match="later"), open_run(cfg) as run:
        file = save_checkpoint(run.path)
        raise RuntimeError("later")
    assert file.exists()


def test_a_name_that_is_taken(cfg: DictConfig) -> None:
    cfg.name = "mine"
    with open_run(cfg):
        pass
    with pytest.raises(UsageError, match="resume=.*mine continues it"), open_run(cfg):
        pass
