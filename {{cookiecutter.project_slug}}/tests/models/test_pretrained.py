"""Nets that start from the weights of trained ones, with other norms and with the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from {{cookiecutter.package_name}}.config import compose, plain, recompose
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.models.base import BaseModule
from {{cookiecutter.package_name}}.models.pretrained import initialise_
from {{cookiecutter.package_name}}.norms import PointwiseNorm
from {{cookiecutter.package_name}}.norms.transfer import Distance
from {{cookiecutter.package_name}}.runs import evaluable, saved_checkpoint
from {{cookiecutter.package_name}}.train import build_data, build_module, evaluate

from ..conftest import each_family
from ..runs import Start, Tiny
from ..test_resume import resume

FEW = ["init.samples=64"]


def configured(tiny: Tiny, *argv: str) -> DictConfig:
    """Of a net that has, under any norm, what norm=dyt wants of this family besides the norm."""
    cfg = compose([*tiny.argv, *FEW, *argv])
    cfg.model.update(plain(compose([*tiny.argv, "norm=dyt"]).model))
    return cfg


@pytest.fixture(scope="module")
def old(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A checkpoint under LayerNorm with a moving average, and the weights of that."""
    cfg = configured(tiny, "norm=ln", "ema.decay=0.9", "seed=1")
    build_data(cfg)
    task = build_module(cfg)
    assert task.ema is not None
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in task.ema.parameters():  # away from where norms and biases start
            parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))
    file = tmp_path_factory.mktemp("old") / "old.ckpt"
    torch.save({"config": plain(cfg), "global_step": 0, "state_dict": task.state_dict()}, file)
    return file, task.ema.state_dict()


def initialised(cfg: DictConfig) -> tuple[BaseModule, dict[str, Distance]]:
    data = build_data(cfg)
    task = build_module(cfg)
    return task, initialise_(task, cfg, data)


@each_family
def test_the_same_norm_is_the_same_net(tiny: Tiny, old: tuple[Path, dict[str, Any]]) -> None:
    task, distances = initialised(configured(tiny, "norm=ln", f"init={old[0]}", "ema.decay=0.9"))
    for net in (task.model, task.ema):
        assert isinstance(net, nn.Module)
        state = net.state_dict()
        assert state.keys() == old[1].keys()
        assert all(torch.equal(state[name], old[1][name]) for name in state)
    assert distances["fresh"].relative == 0


@each_family
@pytest.mark.parametrize("norm", ["dyt", "derf"])
def test_calibrated_norms_are_nearer(
    tiny: Tiny, old: tuple[Path, dict[str, Any]], norm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*tiny.argv, *FEW, f"norm={norm}", "norm.alpha0=0.5"]
    task, distances = initialised(compose([*argv, f"init={old[0]}", "ema.decay=0.9"]))
    assert distances["calibrated"].relative < distances["fresh"].relative
    kept = [distance.kept for distance in distances.values()]
    assert all((share is not None) == task.classifies for share in kept)
    printed = capsys.readouterr().out
    assert f"init      the weights of {old[0]}, {len(tiny.norms)} norms replaced\n" in printed
    assert f"calibrated norms: outputs off by {distances['calibrated'].relative:.1%}" in printed
    for name, tensor in task.model.state_dict().items():
        layer = name.rpartition(".")[0]
        if layer not in tiny.norms:
            assert torch.equal(tensor, old[1][name]), name
    assert task.ema is not None
    averages = task.ema.state_dict()
    assert all(torch.equal(tensor, averages[name]) for name, tensor in task.model.state_dict().items())
    again, _ = initialised(compose([*argv, f"init.weights={old[0]}"]))
    assert all(torch.equal(tensor, averages[name]) for name, tensor in again.model.state_dict().items())


@each_family
def test_norms_of_queries_and_keys(tiny: Tiny, old: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    cfg = configured(tiny, "norm=rmsnorm", "seed=1")
    cfg.model.qk_norm = True
    build_data(cfg)
    task = build_module(cfg)
    file = tmp_path / "qk.ckpt"
    torch.save({"config": plain(cfg), "global_step": 0, "state_dict": task.state_dict()}, file)
    new = compose([*tiny.argv, *FEW, "norm=dyt", "model.qk_norm=true", f"init={file}"])
    calibrated, distances = initialised(new)
    assert distances["calibrated"].relative < distances["fresh"].relative
    heads = [norm for name, norm in calibrated.model.named_modules() if re.search(r"\.[qk]_norm$", name)]
    assert len(heads) == 4
    assert all(isinstance(norm, PointwiseNorm) and norm.alpha.item() != 0.5 for norm in heads)
    with pytest.raises(UsageError, match="q_norm"):
        initialised(compose([*tiny.argv, "norm=dyt", "model.qk_norm=true", f"init={old[0]}"]))


@each_family
def test_fresh_norms_start_as_they_do(tiny: Tiny, old: tuple[Path, dict[str, Any]]) -> None:
    cfg = compose([*tiny.argv, "norm=dyt", f"init={old[0]}", "init.norms=fresh"])
    task, distances = initialised(cfg)
    assert list(distances) == ["fresh"]
    untouched = build_module(cfg).model.state_dict()
    for name, tensor in task.model.state_dict().items():
        layer = name.rpartition(".")[0]
        assert torch.equal(tensor, untouched[name] if layer in tiny.norms else old[1][name]), name


def test_a_run_needs_its_source_once(
    tiny: Tiny, old: tuple[Path, dict[str, Any]], start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(old[0].read_bytes())
    run, summary = start("norm=dyt", f"init={copy}", "init.samples=32", "trainer.limit_train_batches=2")
    assert capsys.readouterr().out.count("norms replaced") == 1
    assert f"weights: {copy}\n" in (run / "config.yaml").read_text(encoding="utf-8")
    copy.unlink()
    checkpoint, config = saved_checkpoint(run)
    tag = f"test/{sorted(tiny.metrics)[0]}"
    cfg = recompose(config, [], anew=(), free=evaluable(config))
    assert evaluate(cfg, checkpoint, "test")[tag] == pytest.approx(summary[tag], rel=1e-5)
    _, longer = start(cfg=resume(run, "trainer.max_epochs=3"))
    assert longer["steps"] == 6
    assert "norms replaced" not in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"init\.weights=.*copy\.ckpt: there is no checkpoint"):
        start("norm=dyt", f"init={copy}")
    with pytest.raises(UsageError, match=r"init\.weights=other: an earlier run keeps its own"):
        resume(run, "init=other")


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (["model.depth=3"], r"blocks\.2\..*model\.depth=2$"),
        (["model.embed_dim=48"], r"there and .* here.*model\.embed_dim=32"),
        (["model.num_heads=4"], r"something else.*model\.num_heads=2"),
        (["norm=bn"], r"norm=bn .*init\.norms=fresh"),
        (["init=nowhere.ckpt"], r"nowhere\.ckpt"),
        (["init=nowhere"], r"init\.weights=nowhere: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals(
    argv: list[str], answer: str, tiny: Tiny, old: tuple[Path, dict[str, Any]], start: Start, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=answer):
        start("norm=dyt", f"init={old[0]}", *argv)
    assert not list((tmp_path / "runs").glob("*"))


@each_family
def test_a_net_of_another_task(tiny: Tiny, start: Start, tmp_path: Path) -> None:
    cfg = compose(tiny.argv)
    build_data(cfg)
    config = plain(cfg)
    config["task"]["name"] = "other"
    torch.save({"config": config, "global_step": 0, "state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UsageError, match=rf"other\.ckpt: it is of task=other, and this is task={tiny.family}$"):
        start(f"init={tmp_path / 'other.ckpt'}")
    assert not list((tmp_path / "runs").glob("*"))


def test_a_file_that_is_damaged(start: Start, tmp_path: Path) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"bad\.ckpt: damaged, or no checkpoint"):
        start(f"init={tmp_path / 'bad.ckpt'}")
