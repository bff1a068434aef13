"""LLaMAs that start from a folder of Hugging Face's format."""

from pathlib import Path

import pytest
import torch

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.models.llm.export import export
from {{cookiecutter.package_name}}.runs import saved_checkpoint

from ..test_pretrained import initialised
from .llm_nets import save_checkpoint
from .tiny import TINY

ARGV = [*TINY.argv, "init.samples=64"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hf")
    save_checkpoint(path / "net.ckpt", [*TINY.argv, "norm=rmsnorm"])
    file, config = saved_checkpoint(path / "net.ckpt")
    export(file, config, str(path / "exported"))
    return path / "exported"


def test_a_folder_of_transformers(folder: Path) -> None:
    same, distances = initialised(compose([*ARGV, "norm=rmsnorm", f"init={folder}"]))
    assert distances["fresh"].relative == 0
    task, distances = initialised(compose([*ARGV, "norm=dyt", "model.embed_scale=false", f"init={folder}"]))
    assert distances["calibrated"].relative < distances["fresh"].relative
    assert torch.equal(task.net.get_parameter("head.weight"), same.net.get_parameter("head.weight"))


def test_refusals(folder: Path) -> None:
    with pytest.raises(UsageError, match=r": this net has embed_scale, and that one has not$"):
        initialised(compose([*ARGV, "norm=dyt", f"init={folder}"]))
    with pytest.raises(UsageError, match=r"that net computes something else with the same weights$"):
        initialised(compose([*ARGV, "norm=rmsnorm", "model.rope_base=100.0", f"init={folder}"]))
    with pytest.raises(UsageError, match=r"init\.weights=nowhere: there is nothing; expected a run, a checkpoint"):
        initialised(compose([*ARGV, "init=nowhere"]))
