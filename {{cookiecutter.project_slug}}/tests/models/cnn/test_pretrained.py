"""CNNs that start from weights with timm's names."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from {{cookiecutter.package_name}}.config import compose

from ..test_pretrained import initialised
from .tiny import TINY

ARGV = [*TINY.argv, "init.samples=64"]


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, Any]:
    """A file of a small ResNet with BatchNorm and 7 classes, and that net."""
    torch.manual_seed(0)
    net = timm.create_model("resnet_cifar", width=8, depth=1, in_chans=1, num_classes=7)
    for _, buffer in net.named_buffers():
        if buffer.ndim:  # not the number of batches
            nn.init.uniform_(buffer, 0.5, 2)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors", net.eval()


def test_dyt_is_fitted_to_batch_norm(weights: tuple[Path, Any], capsys: pytest.CaptureFixture[str]) -> None:
    task, distances = initialised(compose([*ARGV, f"init={weights[0]}"]))
    assert "9 norms replaced; fc: of another size there, starts anew\n" in capsys.readouterr().out
    assert distances["calibrated"].relative < distances["fresh"].relative
    assert isinstance(task.model.bn1.alpha, nn.Parameter)
    assert len(task.model.bn1.alpha.unique()) > 1


def test_timms_batch_norm_is_ours(weights: tuple[Path, Any]) -> None:
    file, theirs = weights
    task, _ = initialised(compose([*ARGV, "norm=bn", f"init={file}"]))
    ours, x = task.model.eval(), torch.randn(4, 1, 8, 8)
    for net in (ours, theirs):
        net.fc = nn.Identity()
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
