"""A LLaMA in parts, without the other process: what is checked here needs no communication."""

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy

from {{cookiecutter.package_name}}.config import compose
from {{cookiecutter.package_name}}.distributed import shard
from {{cookiecutter.package_name}}.models.build import build_model

from .tiny import TINY


@pytest.mark.skipif("param_dtype_override_fn" not in MixedPrecisionPolicy.__dataclass_fields__, reason="torch < 2.15")
def test_only_what_autocast_narrows_travels_in_16_bits(mesh: DeviceMesh) -> None:
    """alpha above all stays fp32 on its way: the others' rounding is autocast's, and there is none besides."""
    cfg = compose([*TINY.argv, "data.vocab_size=257"])
    model = build_model(cfg, "meta")
    shard(model, mesh, "bf16-mixed", cfg.seed)
    seen: dict[nn.Module, set[torch.dtype]] = {}

    def look(module: nn.Module, _: tuple[torch.Tensor, ...]) -> None:
        seen[module] = {parameter.dtype for parameter in module.parameters(recurse=False)}

    for module in model.modules():
        module.register_forward_pre_hook(look)
    tokens = torch.zeros(2, 16, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        model(tokens, tokens).backward()
    for module, dtypes in seen.items():
        assert dtypes <= {torch.bfloat16 if isinstance(module, nn.Linear) else torch.float32}, module
    assert sum(torch.bfloat16 in dtypes for dtypes in seen.values()) == 2 * 7 + 1
    assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in model.parameters())
