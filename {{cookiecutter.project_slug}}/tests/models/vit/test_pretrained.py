"""ViTs that start from timm's weights."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.models.vit.model import load_pretrained

from ...runs import Start
from ..test_pretrained import initialised
from .tiny import TINY

SIZES: dict[str, Any] = {"img_size": 8, "in_chans": 1, "patch_size": 2, "embed_dim": 32, "depth": 2, "num_heads": 2}
ARGV = [*TINY.argv, "norm=dyt", "init.samples=64"]


@pytest.fixture(scope="module", params=["safetensors", "pth"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A file of timm's own net, of 7 classes, and that net."""
    torch.manual_seed(0)
    settings = {**SIZES, "global_pool": "avg", "class_token": False, "num_classes": 7}
    net = timm.create_model("vit_tiny_patch16_224", **settings)
    file = tmp_path_factory.mktemp("timm") / f"net.{request.param}"
    if request.param == "pth":
        torch.save({"model": net.state_dict()}, file)
    else:
        save_file(net.state_dict(), file)
    return file, net.eval()


def test_a_file_of_timm_with_other_classes(weights: tuple[Path, nn.Module], capsys: pytest.CaptureFixture[str]) -> None:
    file, theirs = weights
    task, distances = initialised(compose([*ARGV, f"init={file}"]))
    assert "5 norms replaced; head: of another size there, starts anew\n" in capsys.readouterr().out
    weight = "blocks.1.mlp.fc1.weight"
    assert task.model.get_parameter("head.weight").shape == (10, 32)
    assert torch.equal(task.model.get_parameter(weight), theirs.get_parameter(weight))
    assert distances["calibrated"].relative < distances["fresh"].relative


def test_timms_layer_norm_is_ours(weights: tuple[Path, Any]) -> None:
    file, theirs = weights
    task, _ = initialised(compose([*ARGV, "norm=ln", f"init={file}"]))
    x = torch.randn(4, 1, 8, 8)
    ours: Any = task.model.eval()
    with torch.no_grad():
        assert torch.equal(ours.forward_features(x), theirs.forward_features(x))
    assert torch.equal(ours.fc_norm.weight, theirs.fc_norm.weight)


def test_a_name_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of timm; the weights of a small net stand in for those that it would fetch."""
    asked: dict[str, object] = {}

    def create_model(name: str, **settings: object) -> nn.Module:
        asked.update(settings, name=name)
        return nn.Identity()

    monkeypatch.setattr(timm, "create_model", create_model)
    load_pretrained("timm/vit_tiny_patch16_224", {"img_size": 8, "in_chans": 1, "kwargs": {}})
    assert asked == {"name": "vit_tiny_patch16_224", "pretrained": True, "img_size": 8, "in_chans": 1}


@pytest.mark.parametrize("init", ["timm/vit_nothing", "nothing.pth", "pyproject.toml"])
def test_weights_that_are_none(init: str, start: Start, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=init):
        start("norm=dyt", f"init={init}")
    assert not list((tmp_path / "runs").glob("*"))


def test_a_file_of_another_size(weights: tuple[Path, nn.Module]) -> None:
    with pytest.raises(ValueError, match="loading"):
        initialised(compose([*ARGV, "model.depth=3", f"init={weights[0]}"]))
