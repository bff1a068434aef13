"""LayerNorm, RMSNorm and BatchNorm against their formulas, written out here."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from .common import DIM, build, randomize_, tokens


def test_ln_and_rmsnorm_are_their_formulas():
    x = tokens(4, DIM)
    ln, rmsnorm = randomize_(build("ln", eps=0.1)), randomize_(build("rmsnorm", eps=0.1))
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 0.1).sqrt() * ln.weight + ln.bias
    torch.testing.assert_close(ln(x).double(), expected, rtol=1e-5, atol=1e-5)
    expected = wide / (wide.square().mean(-1, keepdim=True) + 0.1).sqrt() * rmsnorm.weight
    torch.testing.assert_close(rmsnorm(x).double(), expected, rtol=1e-5, atol=1e-5)


def rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    return (x.square().mean(-1, keepdim=True) + eps).sqrt()


def test_variants_of_rmsnorm_are_their_formulas():
    x, eps = tokens(4, DIM), 0.1
    wide = x.double()
    unit = wide / rms(wide, eps)
    made = {
        "scalenorm": randomize_(build("scalenorm", eps=eps)),
        "prmsnorm": randomize_(build("prmsnorm", eps=eps, part=0.3)),
        "bhyt": randomize_(build("bhyt", eps=eps, kappa=5.0)),
        "last bhyt": randomize_(build("bhyt", eps=eps, site="final")),
        "without weight": build("rmsnorm", eps=eps, scale="none"),
        "one plus weight": randomize_(build("rmsnorm", eps=eps, scale="one_plus_weight")),
    }
    expected = {
        "scalenorm": unit * made["scalenorm"].weight,
        "prmsnorm": wide / rms(wide[:, :3], eps) * made["prmsnorm"].weight,
        "bhyt": torch.tanh(made["bhyt"].lam.double() / 5 * unit) * made["bhyt"].weight,
        "last bhyt": unit * made["last bhyt"].weight,
        "without weight": unit,
        "one plus weight": unit * (1 + made["one plus weight"].weight),
    }
    for name, norm in made.items():
        torch.testing.assert_close(norm(x).double(), expected[name], rtol=1e-5, atol=1e-5, msg=name)


def test_a_weight_that_is_added_to_one_starts_at_zero():
    norm = build("rmsnorm", scale="one_plus_weight")
    assert not norm.weight.any()
    torch.testing.assert_close(norm(tokens(4, DIM)), build("rmsnorm")(tokens(4, DIM)))


@pytest.mark.parametrize("bias", [True, False])
def test_bn_is_batch_norm_of_all_tokens(bias):
    norm = randomize_(build("bn", bias=bias, momentum=0.3, eps=0.1))
    x = tokens(2, 3, DIM).requires_grad_()
    y = norm(x)
    flat = x.detach().double().view(6, DIM)
    expected = (flat - flat.mean(0)) / (flat.var(0, unbiased=False) + 0.1).sqrt() * norm.bn.weight
    expected = expected + norm.bn.bias if bias else expected
    torch.testing.assert_close(y.double(), expected.view(2, 3, DIM), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.bn.running_mean.double(), 0.3 * flat.mean(0))
    torch.testing.assert_close(norm.bn.running_var.double(), 0.7 + 0.3 * flat.var(0))
    before = norm.eval().bn.running_mean.clone()
    fixed = (x[:1] - norm.bn.running_mean) / (norm.bn.running_var + 0.1).sqrt() * norm.bn.weight
    torch.testing.assert_close(norm(x[:1]), fixed + norm.bn.bias if bias else fixed)
    assert torch.equal(norm.bn.running_mean, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bn_keeps_its_statistics_in_fp32(dtype):
    norm, x = build("bn"), tokens(64, DIM, dtype=dtype)
    nn.Sequential(norm).to(dtype)
    for _ in range(100):
        norm(x)
    assert norm.bn.running_mean.dtype == norm.bn.weight.dtype == torch.float32
    torch.testing.assert_close(norm.bn.running_var, x.float().var(0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_bn_becomes_sync_batch_norm(bias):
    model: Any = nn.Sequential(nn.Linear(DIM, DIM), randomize_(build("bn", bias=bias)))
    model(tokens(2, 3, DIM))
    expected = copy.deepcopy(model)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(model[1].bn, nn.SyncBatchNorm)
    assert model.state_dict().keys() == expected.state_dict().keys()
    torch.testing.assert_close(model.eval()(tokens(2, 3, DIM)), expected.eval()(tokens(2, 3, DIM)))
    assert model.to(torch.bfloat16)[1].bn.running_var.dtype == torch.float32
