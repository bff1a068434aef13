"""Two processes that share a net against one that holds it."""

import json
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from {{cookiecutter.package_name}} import distributed as parallel
from {{cookiecutter.package_name}}.config import compose, recompose
from {{cookiecutter.package_name}}.config.errors import UsageError
from {{cookiecutter.package_name}}.data import base
from {{cookiecutter.package_name}}.distributed import shard
from {{cookiecutter.package_name}}.models.build import build_model
from {{cookiecutter.package_name}}.runs import (
    evaluable,
    load_checkpoint,
    saved_checkpoint,
)
from {{cookiecutter.package_name}}.train import evaluate, training_device

from .conftest import FAMILIES, each_family
from .runs import Start, Tiny, rows
from .stop_and_go import ARGV, assert_both_equal, stop_and_go
from .test_resume import resume

TELL = """
import json

def tell(task):
    shapes = [(name, list(one.to_local().shape)) for name, one in task.model.named_parameters()]
    Path(f"rank{task.global_rank}.json").write_text(json.dumps(dict(shapes)))

BaseModule.on_train_end = tell
"""

# One process a batch less.
EVALUATE = """
limit, config = ["trainer=fsdp_cpu", f"trainer.limit_val_batches={2 - rank}"], resumed_run(run)[1]
metrics = evaluate(recompose(config, limit, ("trainer",), evaluable(config)), last, "val")
Path(f"val{rank}.json").write_text(json.dumps(metrics))
"""


@pytest.fixture(scope="module")
def two_processes(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    argv = ["trainer=fsdp_cpu", "monitor.curves=first,last"]
    return stop_and_go(tiny, tmp_path_factory.mktemp("fsdp"), *argv, before=TELL, after=EVALUATE)


@each_family
def test_numbers_are_those_of_one_process(two_processes: Path, start: Start) -> None:
    """First weights, gradients, clipping, moving average and metrics: all of them show in the curves and at the end."""
    alone, _ = start(*ARGV, "monitor.samples=32")
    run = two_processes / "first"
    one, two = (load_checkpoint(path / "checkpoints" / "last.ckpt", "cpu")["state_dict"] for path in (alone, run))
    assert one.keys() == two.keys()
    # all of them together: AdamW makes whole steps of gradients that are but rounding errors
    flat = [torch.cat([tensor.flatten() for tensor in weights.values()]) for weights in (one, two)]
    assert (flat[1] - flat[0]).norm() < 1e-5 * flat[0].norm()
    ours, theirs = ({(step, tag): value for step, tag, value in rows(path)} for path in (run, alone))
    assert ours.keys() == theirs.keys()
    compared = [key for key in ours if not key[1].startswith(("throughput", "train/loss"))]  # of its own samples
    kinds = {tag.partition("/")[0] for _, tag in compared}
    assert {"alpha", "alpha_grad", "input_std", "saturated", "val", "test"} < kinds
    assert "train/grad_norm" in {tag for _, tag in compared}
    assert (run / "curves.png").exists(), "for which all of them run the net, and one draws"
    for key in compared:
        sums_that_cancel = key[1].startswith(("alpha_grad", "alpha_vs_inverse_std"))
        rel = 1e-3 if sums_that_cancel else 1e-5
        assert ours[key] == pytest.approx(theirs[key], rel=rel, abs=1e-6), key


@each_family
def test_a_process_holds_its_part_and_one_saves_all(two_processes: Path) -> None:
    run = two_processes / "first"
    weights = load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    parts = [json.loads((two_processes / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert len(parts[0]) > 15
    for name, one in parts[0].items():
        rows_of_all, *rest = weights[f"model.{name}"].shape
        assert one == [(rows_of_all + 1) // 2, *rest], name
        assert parts[1][name] == [rows_of_all // 2, *rest], name
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@each_family
def test_a_resumed_run_equals_one_that_never_stopped(two_processes: Path) -> None:
    assert_both_equal(two_processes)


@each_family
def test_a_process_with_fewer_batches_is_waited_for(two_processes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had one batch of the validation, the other two; what each saw is measured here by itself."""
    measured = [json.loads((two_processes / f"val{rank}.json").read_text()) for rank in (0, 1)]
    assert measured[0] == measured[1]
    losses = []
    for rank, batches in (0, 2), (1, 1):
        monkeypatch.setattr(base, "rank_and_world", lambda _, rank=rank: (rank, 2))
        checkpoint, config = saved_checkpoint(two_processes / "runs" / "whole" / "checkpoints" / "last.ckpt")
        argv = ["trainer=cpu", f"trainer.limit_val_batches={batches}", "data.batch_size=16"]
        cfg = recompose(config, argv, ("data", "trainer"), evaluable(config))
        losses.append(evaluate(cfg, checkpoint, "val")["val/loss"])
    assert measured[0]["val/loss"] == pytest.approx((2 * losses[0] + losses[1]) / 3, rel=1e-5)


@each_family
def test_one_process_evaluates_and_goes_on(two_processes: Path, start: Start, tmp_path: Path) -> None:
    run = Path(shutil.copytree(two_processes / "first", tmp_path / "run"))
    checkpoint, config = saved_checkpoint(run)
    assert checkpoint == run / "checkpoints" / "best.ckpt"
    cfg = recompose(config, ["trainer=cpu"], ("trainer",), evaluable(config))
    printed = json.loads((run / "summary.json").read_text())
    tested = {tag: value for tag, value in printed.items() if tag.startswith("test/")}
    again = evaluate(cfg, checkpoint, "test")
    assert {tag: again[tag] for tag in tested} == pytest.approx(tested, rel=1e-5)
    alone = Path(shutil.copytree(run, tmp_path / "alone"))
    with patch.dict(os.environ):  # Lightning leaves there what it starts processes with
        _, values = start(cfg=resume(run, "trainer.devices=1", "trainer.max_epochs=3"))
        torch.distributed.destroy_process_group()
    assert values["steps"] == 18
    _, values = start(cfg=resume(alone, "trainer=cpu", "trainer.max_epochs=3"))
    one, other = (load_checkpoint(path / "checkpoints" / "last.ckpt", "cpu")["state_dict"] for path in (run, alone))
    flat = [torch.cat([tensor.flatten() for tensor in weights.values()]) for weights in (one, other)]
    assert (flat[1] - flat[0]).norm() < 1e-5 * flat[0].norm()
    with pytest.raises(UsageError, match="trainer=fsdp"):
        start(cfg=resume(alone, "trainer=fsdp_cpu", "trainer.max_epochs=4"))


@pytest.mark.parametrize(
    ("tiny", "argv"),
    [pytest.param(tiny, argv, id=" ".join([tiny.family, *argv])) for tiny in FAMILIES for argv in tiny.starts],
    indirect=["tiny"],
)
def test_parts_are_drawn_as_the_whole_is(tiny: Tiny, mesh: DeviceMesh, argv: list[str]) -> None:
    """Where a net is drawn once it is in parts."""
    cfg = compose([*tiny.argv, *argv])
    whole, part = build_model(cfg), build_model(cfg, "meta")
    shard(part, mesh, "32-true", cfg.seed)
    ours, theirs = (dict(net.named_parameters()) for net in (part, whole))
    assert ours.keys() == theirs.keys()
    for name, one in theirs.items():
        held = ours[name]
        assert isinstance(held, DTensor)
        assert torch.equal(held.to_local(), one[(len(one) + 1) // 2 :]), name
    assert all(map(torch.equal, part.buffers(), whole.buffers()))


@each_family
def test_a_net_that_is_drawn_later_is_tested_so(tiny: Tiny) -> None:
    assert bool(tiny.starts) == (training_device(compose([*tiny.argv, "trainer=fsdp_cpu"])) == "meta")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["norm=bn"], "trainer.strategy=fsdp"),
        (["trainer.precision=bf16-true"], "trainer.precision=bf16-true: choose 32-true or bf16-mixed"),
    ],
    ids=["norm", "precision"],
)
def test_what_fsdp_cannot_do_is_said(start: Start, overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        start("trainer=fsdp_cpu", *overrides)


def test_an_older_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(parallel.MixedPrecisionPolicy.__dataclass_fields__, "param_dtype_override_fn", raising=False)
    parallel.check_shardable(nn.Linear(2, 3), "32-true")
    with pytest.raises(ValueError, match=r"2\.15"):
        parallel.check_shardable(nn.Linear(2, 3), "bf16-mixed")
