"""A LLaMA in parts, without the other process: what is checked here needs no communication."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.nets import build_net
from {{cookiecutter.package_name}}.parallel import shard

from .llm_tiny import TINY


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """Of two processes, of which this is the second; "fake" never waits for the first."""
    init_process_group("fake", rank=1, world_size=2)
    yield init_device_mesh("cpu", (2,))
    destroy_process_group()


@pytest.mark.parametrize("argv", [[], ["model.tied=true"], ["model.init=normal", "norm=derf"]], ids=" ".join)
def test_parts_are_drawn_as_the_whole_is(mesh: DeviceMesh, argv: list[str]) -> None:
    cfg = compose([*TINY.argv, "data.vocab_size=257", *argv])
    whole, part = build_net(cfg), build_net(cfg, "meta")
    shard(part, mesh, "32-true", cfg.seed)
    ours, theirs = (dict(net.named_parameters()) for net in (part, whole))
    assert ours.keys() == theirs.keys()
    for name, one in theirs.items():
        held = ours[name]
        assert isinstance(held, DTensor)
        assert torch.equal(held.to_local(), one[(len(one) + 1) // 2 :]), name
    assert all(map(torch.equal, part.buffers(), whole.buffers()))


def test_only_what_autocast_narrows_travels_in_16_bits(mesh: DeviceMesh) -> None:
    """alpha above all stays fp32 on its way: the others' rounding is autocast's, and there is none besides."""
    cfg = compose([*TINY.argv, "data.vocab_size=257"])
    net = build_net(cfg, "meta")
    shard(net, mesh, "bf16-mixed", cfg.seed)
    seen: dict[nn.Module, set[torch.dtype]] = {}

    def look(module: nn.Module, _: tuple[torch.Tensor, ...]) -> None:
        seen[module] = {parameter.dtype for parameter in module.parameters(recurse=False)}

    for module in net.modules():
        module.register_forward_pre_hook(look)
    tokens = torch.zeros(2, 16, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        net(tokens, tokens).backward()
    for module, dtypes in seen.items():
        assert dtypes <= {torch.bfloat16 if isinstance(module, nn.Linear) else torch.float32}, module
    assert sum(torch.bfloat16 in dtypes for dtypes in seen.values()) == 2 * 7 + 1
    assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in net.parameters())
