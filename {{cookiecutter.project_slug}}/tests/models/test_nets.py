"""Networks from a config, and where and how they compute."""

from pathlib import Path

import pytest
import torch
from torch import nn

from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.models import get_family
from {{cookiecutter.package_name}}.models.build import build_model
from {{cookiecutter.package_name}}.models.trained import find_device, set_precision, trained_model

from ..conftest import FAMILIES
from ..runs import Tiny

BUILD = get_family(FAMILIES[0].family).build_model


def saved(file: Path, **nets: nn.Module) -> Path:
    state = {f"{name}.{key}": one for name, net in nets.items() for key, one in net.state_dict().items()}
    torch.save({"config": plain(compose(FAMILIES[0].argv)), "global_step": 0, "state_dict": state}, file)
    return file


def test_the_net_of_a_checkpoint_is_the_average_where_there_is_one(tmp_path: Path) -> None:
    net, average = (build_model(compose([*FAMILIES[0].argv, f"seed={seed}"])) for seed in (1, 2))
    for nets, expected in (({"model": net}, net), ({"model": net, "ema": average}, average)):
        found = trained_model(BUILD, compose(FAMILIES[0].argv), saved(tmp_path / "last.ckpt", **nets))
        assert not found.training
        torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("tiny", [tiny for tiny in FAMILIES if "checkpointing" in compose(tiny.argv).model], ids=str)
def test_statistics_over_a_batch_that_is_computed_twice(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match=r"model.checkpointing"):
        compose([*tiny.argv, "norm=bn", "model.checkpointing=true"])


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "last.ckpt", net=nn.Linear(2, 3))
    with pytest.raises(UsageError, match=r"last\.ckpt: its weights do not fit"):
        trained_model(BUILD, compose(FAMILIES[0].argv), file)


@pytest.mark.parametrize(
    ("precision", "weights", "autocast"),
    [
        ("32-true", torch.float32, None),
        (None, torch.float32, None),
        (32, torch.float32, None),
        ("bf16-mixed", torch.float32, torch.bfloat16),
        ("16-mixed", torch.float32, torch.float16),
        ("bf16", torch.float32, torch.bfloat16),  # what the trainer takes for bf16-mixed
        ("bf16-true", torch.bfloat16, None),
        ("16-true", torch.float16, None),
        ("64-true", torch.float64, None),
    ],
)
def test_precision(precision: str | int | None, weights: torch.dtype, autocast: torch.dtype | None) -> None:
    net = nn.Linear(2, 3)
    assert set_precision(net, precision) == autocast
    assert net.weight.dtype == weights


def test_devices() -> None:
    assert find_device("cpu").type == "cpu"
    assert (find_device("auto").type == "cpu") == (not torch.accelerator.is_available())
    for name in ("abacus", "cuda:99", "cpu:x", "hpu", "ipu", "mtia", ""):
        with pytest.raises(UsageError) as refusal:
            find_device(name)
        assert str(refusal.value) == f"device={name}: PyTorch finds no such device here; auto takes what there is"
    with pytest.raises(UsageError, match=r"^device=meta: it computes nothing; auto takes what there is$"):
        find_device("meta")
