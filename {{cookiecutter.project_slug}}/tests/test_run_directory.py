"""One directory for a run, its ranks and its restarts."""

import os
import re
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.config.errors import Diverged, UsageError
from {{cookiecutter.package_name}}.runs import RUN_DIR, lock_run, open_run

LAUNCHERS = {
    "torchrun": {"TORCHELASTIC_RUN_ID": "abc"},
    "slurm": {"SLURM_NTASKS": "16", "SLURM_PROCID": "3", "SLURM_JOB_ID": "abc"},
}


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    for name in (RUN_DIR, "TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_ID", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    return compose([f"runs={tmp_path / 'runs'}", "norm=ln"])


def save_checkpoint(run: Path, cfg: DictConfig) -> Path:
    file = run / "checkpoints" / "last.ckpt"
    file.parent.mkdir()
    torch.save({"config": plain(cfg), "global_step": 5, "state_dict": {}}, file)
    return file


def test_numbers_count_up(cfg: DictConfig) -> None:
    for number in (1, 2, 3):
        with open_run(cfg, 10) as run:
            assert run.path == Path(cfg.runs) / f"{cfg.task.name}-ln-{number}"
            assert run.checkpoint is None


def test_a_rank_that_lightning_starts_shares_the_directory(cfg: DictConfig) -> None:
    with open_run(cfg, 10) as run, open_run(cfg, 10) as same:
        assert same.path == run.path.resolve()
    assert RUN_DIR not in os.environ, "the next run in this process is another"
    with open_run(cfg, 10) as another:
        assert another.path != run.path


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_restarted_job_goes_on_in_its_directory(
    launcher: str, cfg: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)
    with open_run(cfg, 10) as run:
        assert run.path.name.startswith(f"{cfg.task.name}-ln-abc-")
        assert run.checkpoint is None
        file = save_checkpoint(run.path, cfg)
    with open_run(cfg, 10) as again:
        assert (again.path, again.checkpoint) == (run.path, file)
    cfg.monitor.every_n_steps = 7
    with open_run(cfg, 10) as same:
        assert same.path == run.path, "what may change on a resume does not make another run"
    cfg.optim.lr = 0.5
    with open_run(cfg, 10) as another:
        assert another.path != run.path


def test_a_name_in_a_job_is_not_shared_by_different_runs(cfg: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "abc")
    cfg.name = "mine"
    with open_run(cfg, 10) as run:
        save_checkpoint(run.path, cfg)
    words = re.escape(f"mine: holds another run (optim.lr={cfg.optim.lr}, not 0.5)")
    cfg.optim.lr = 0.5
    with pytest.raises(UsageError, match=words), open_run(cfg, 10):
        pass


def test_an_interactive_slurm_shell_is_no_job(cfg: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_JOB_NAME": "bash", "SLURM_PROCID": "0", "SLURM_JOB_ID": "abc"}.items():
        monkeypatch.setenv(name, value)
    with open_run(cfg, 10) as run:
        assert run.path.name == f"{cfg.task.name}-ln-1"


def test_runs_that_is_a_file(cfg: DictConfig, tmp_path: Path) -> None:
    cfg.runs = str(tmp_path / "file")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"runs=.*file: "), open_run(cfg, 10):
        pass


def break_off(cfg: DictConfig, saved: bool) -> Path:
    with open_run(cfg, 10) as run:
        (run.path / "config.yaml").touch()
        if saved:
            save_checkpoint(run.path, cfg)
        raise RuntimeError(run.path)


@pytest.mark.parametrize("saved", [False, True])
def test_a_run_that_fails_keeps_its_directory_from_the_first_checkpoint_on(saved: bool, cfg: DictConfig) -> None:
    with pytest.raises(RuntimeError) as caught:
        break_off(cfg, saved)
    assert caught.value.args[0].exists() == saved


def test_a_run_that_diverges_keeps_its_curves(cfg: DictConfig) -> None:
    with pytest.raises(Diverged), open_run(cfg, 10) as run:
        raise Diverged("the training has diverged")
    assert run.path.is_dir()


def test_a_name_that_is_taken(cfg: DictConfig) -> None:
    cfg.name = "mine"
    with open_run(cfg, 10) as run:
        pass
    with pytest.raises(UsageError, match=r"mine exists; it has no checkpoint: delete it, or choose another"):
        open_run(cfg, 10).__enter__()
    with lock_run(run.path), pytest.raises(UsageError, match="another process trains this run"):
        open_run(cfg, 10).__enter__()
    save_checkpoint(run.path, cfg)
    last = run.checkpoints / "last.ckpt"
    last.rename(last.with_name("best.ckpt"))
    with pytest.raises(UsageError, match=r"mine exists; init=.*best.ckpt starts from its best, or choose another"):
        open_run(cfg, 10).__enter__()
    last.with_name("best.ckpt").rename(last)
    with pytest.raises(UsageError, match=r"mine exists; resume=.*mine continues it, or choose another"):
        open_run(cfg, 10).__enter__()


def test_a_run_is_trained_by_one_process_at_a_time(cfg: DictConfig) -> None:
    """Another one, started by hand or by a comparison that was killed, has no word of RUN_DIR."""
    with open_run(cfg, 10) as run:
        save_checkpoint(run.path, cfg)
        told = os.environ.pop(RUN_DIR)
        cfg.resume = str(run.path)
        with pytest.raises(UsageError, match="another process trains this run"), open_run(cfg, 10):
            pass
        assert (run.checkpoints / "last.ckpt").exists()
        os.environ[RUN_DIR] = told
    with open_run(cfg, 10) as again:
        assert again.checkpoint == again.checkpoints / "last.ckpt"
