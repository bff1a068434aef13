"""Nets that start from the weights of trained ones, with other norms and with the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from {{cookiecutter.package_name}} import train
from {{cookiecutter.package_name}}.config import compose, leaves, plain, recompose
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.models.base import BaseModule
from {{cookiecutter.package_name}}.models.pretrained import initialise_, start_alphas_
from {{cookiecutter.package_name}}.norms import PointwiseNorm
from {{cookiecutter.package_name}}.norms.transfer import Distance
from {{cookiecutter.package_name}}.runs import evaluable, saved_checkpoint
from {{cookiecutter.package_name}}.train import build_data, build_module, evaluate

from ..conftest import each_family
from ..runs import Start, Tiny
from ..test_resume import resume

FEW = ["init.samples=64"]


def configured(tiny: Tiny, *argv: str) -> DictConfig:
    """Of a model that has, under any norm, what norm=dyt wants of this family besides the norm."""
    cfg = compose([*tiny.argv, *FEW, *argv])
    cfg.model.update(plain(compose([*tiny.argv, "norm=dyt"]).model))
    return cfg


@pytest.fixture(scope="module")
def old(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A checkpoint under LayerNorm with a moving average, and the weights of that."""
    cfg = configured(tiny, "norm=ln", "ema.decay=0.9", "seed=1")
    build_data(cfg)
    module = build_module(cfg)
    assert module.ema is not None
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.ema.parameters():  # away from where norms and biases start
            parameter.mul_(1 + 0.3 * torch.rand(parameter.shape, generator=generator))
    file = tmp_path_factory.mktemp("old") / "old.ckpt"
    torch.save({"config": plain(cfg), "global_step": 0, "state_dict": module.state_dict()}, file)
    return file, module.ema.state_dict()


def initialised(cfg: DictConfig) -> tuple[BaseModule, dict[str, Distance]]:
    data = build_data(cfg)
    module = build_module(cfg)
    return module, initialise_(module, cfg, data)


@each_family
def test_the_same_norm_is_the_same_net(tiny: Tiny, old: tuple[Path, dict[str, Any]]) -> None:
    module, distances = initialised(configured(tiny, "norm=ln", f"init={old[0]}", "ema.decay=0.9"))
    for model in (module.model, module.ema):
        assert isinstance(model, nn.Module)
        state = model.state_dict()
        assert state.keys() == old[1].keys()
        assert all(torch.equal(state[name], old[1][name]) for name in state)
    assert distances["fresh"].relative == 0


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
    with pytest.raises(UsageError, match="copy"):
        start("norm=dyt", f"init={copy}")
    with pytest.raises(UsageError, match="other"):
        resume(run, "init=other")


@each_family
@pytest.mark.parametrize("norm", ["dyt", "derf"])
def test_calibrated_norms_are_nearer_than_fresh_ones(
    tiny: Tiny, old: tuple[Path, dict[str, Any]], norm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*tiny.argv, *FEW, f"norm={norm}", "norm.alpha0=0.5", f"init={old[0]}", "ema.decay=0.9"]
    module, distances = initialised(compose(argv))
    assert distances["calibrated"].relative < distances["fresh"].relative
    assert all((distance.kept is not None) == module.classifies for distance in distances.values())
    assert f"{len(tiny.norms)} norms replaced" in capsys.readouterr().out
    assert module.ema is not None
    torch.testing.assert_close(module.ema.state_dict(), module.model.state_dict(), rtol=0, atol=0)
    untouched = build_module(compose(argv)).model.state_dict()
    fresh, distances = initialised(compose([*argv, "init.norms=fresh"]))
    assert list(distances) == ["fresh"]
    for one in (module, fresh):
        for name, tensor in one.model.state_dict().items():
            if name.rpartition(".")[0] not in tiny.norms:
                assert torch.equal(tensor, old[1][name]), name
            elif one is fresh:
                assert torch.equal(tensor, untouched[name]), name


@each_family
def test_norms_of_queries_and_keys(tiny: Tiny, old: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    cfg = configured(tiny, "norm=rmsnorm", "seed=1")
    if "qk_norm" not in cfg.model:
        pytest.skip("a family without attention")
    cfg.model.qk_norm = "same"
    build_data(cfg)
    saved = {"config": plain(cfg), "global_step": 0, "state_dict": build_module(cfg).state_dict()}
    torch.save(saved, tmp_path / "qk.ckpt")
    argv = [*tiny.argv, *FEW, "norm=dyt", "model.qk_norm=same"]
    module, distances = initialised(compose([*argv, f"init={tmp_path / 'qk.ckpt'}"]))
    assert distances["calibrated"].relative < distances["fresh"].relative
    heads = [norm for name, norm in module.model.named_modules() if re.search(r"\.[qk]_norm$", name)]
    assert len(heads) == 4
    assert all(isinstance(norm, PointwiseNorm) and norm.alpha.item() != 0.5 for norm in heads)
    with pytest.raises(UsageError, match="q_norm"):
        initialised(compose([*argv, f"init={old[0]}"]))


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (["model.depth=3"], r"model\.depth=[12]"),
        (["model.embed_dim=48"], r"model\.embed_dim=32"),
        (["model.num_heads=4"], r"model\.num_heads=2"),
        (["norm=bn"], "fresh"),
        (["init=nowhere.ckpt"], "nowhere"),
        (["init=nowhere"], "nowhere"),
        (["init=bad.ckpt"], "damaged"),
        (["init=other.ckpt"], "task=other"),
    ],
    ids=str,
)
def test_refusals(
    argv: list[str],
    answer: str,
    old: tuple[Path, dict[str, Any]],
    start: Start,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = argv[0].partition("=")[0]
    if key.startswith("model.") and key not in dict(leaves(compose(tiny.argv))):
        pytest.skip(f"a family without {key}")
    monkeypatch.chdir(tmp_path)
    Path("bad.ckpt").write_bytes(b"nothing")
    saved = torch.load(old[0], weights_only=True)
    saved["config"]["task"]["name"] = "other"
    torch.save(saved, "other.ckpt")
    cfg = compose([*tiny.argv, "runs=runs", "norm=dyt", f"init={old[0]}", *argv])
    if key == "norm":  # the rest of the model is the same
        cfg.model.update(plain(compose([*tiny.argv, "norm=dyt"]).model))
    with pytest.raises(UsageError, match=answer):
        start(cfg=cfg)
    assert not list(Path("runs").glob("*"))


@each_family
def test_alphas_start_from_data_once(tiny: Tiny, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moving average starts with them too, and a resumed run keeps its own."""
    cfg = configured(tiny, "norm=dyt", "norm.alpha0=auto", "ema.decay=0.9")
    data = build_data(cfg)
    module = build_module(cfg)
    before = {name: one.clone() for name, one in module.model.state_dict().items() if name.endswith("alpha")}
    start_alphas_(module, cfg, data)
    alphas = {name: one for name, one in module.model.state_dict().items() if name.endswith("alpha")}
    assert all(not torch.equal(alphas[name], before[name]) for name in alphas)
    assert module.ema is not None
    torch.testing.assert_close({name: module.ema.state_dict()[name] for name in alphas}, alphas)
    run, _ = start("norm=dyt", "norm.alpha0=auto", *FEW)
    monkeypatch.setattr(train, "start_alphas_", lambda *_: pytest.fail("alphas start anew"))
    start(cfg=resume(run, "trainer.max_epochs=3"))
