"""dyt, derf and other curves against their formulas, written out here in float64."""

import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from {{cookiecutter.package_name}}.norms import derf, dyt, functional

DIM = 6
EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "dyt": torch.tanh,
    "derf": torch.erf,
    "isru": lambda u: u / (1 + u.square()).sqrt(),
    "arctan": lambda u: 2 / math.pi * u.atan(),
    "softsign": F.softsign,
    "hardtanh": F.hardtanh,
    "sigmoid": F.sigmoid,
    "expsign": lambda u: u.sign() * (1 - (-u.abs()).exp()),
}
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "dyt": dyt,
    "derf": derf,
    **{name: partial(functional.pointwise, name) for name in functional.CURVES if name not in ("tanh", "erf")},
}
AFFINE = {"weight and bias": ("weight", "bias"), "weight": ("weight",), "bias": ("bias",), "neither": ()}

each_function = pytest.mark.parametrize("name", FUNCTIONS)
dyt_and_derf = pytest.mark.parametrize("name", ["dyt", "derf"])
each_affine = pytest.mark.parametrize("affine", AFFINE.values(), ids=AFFINE)


def formula(name: str, x: Tensor, alpha: Tensor | None = None, **rest: Tensor) -> Tensor:
    f = EXACT[name]((1 if alpha is None else alpha) * x + rest.get("shift", 0))
    return rest.get("weight", 1) * f + rest.get("bias", 0)


def arguments(name: str, affine=("weight", "bias"), dtype=torch.float64, shape=(4, 3, DIM), std=2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {"x": std * draw(*shape), "alpha": torch.tensor([0.7]), "shift": torch.tensor([-0.3])}
    tensors |= {"weight": draw(shape[-1]), "bias": draw(shape[-1])}
    wanted = ("x", "alpha", *(["shift"] if name == "derf" else []), *affine)
    return {key: tensors[key].to(dtype).requires_grad_() for key in wanted}


def output_and_gradients(
    function: Callable[..., Tensor], tensors: dict[str, Tensor], **options: Any
) -> dict[str, Tensor]:
    y = function(**tensors, **options)
    dy = torch.randint(-127, 128, y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype) / 64  # of seven bits
    gradients = torch.autograd.grad(y, list(tensors.values()), dy)
    return {"y": y.detach(), **dict(zip(tensors, gradients, strict=True))}


def exact(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return output_and_gradients(
        partial(formula, name), {key: one.detach().double().requires_grad_() for key, one in tensors.items()}
    )


def assert_equals_formula(name: str, tensors: dict[str, Tensor], **tolerance: Any) -> None:
    found = output_and_gradients(FUNCTIONS[name], tensors)
    for key, value in exact(name, tensors).items():
        assert found[key].dtype == tensors["x" if key == "y" else key].dtype, key
        torch.testing.assert_close(found[key].double(), value, **tolerance)


@each_function
@each_affine
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("std", [0.01, 2, 100])
def test_values_and_gradients(name, affine, dtype, std):
    accuracy = 20 * torch.finfo(dtype).eps
    assert_equals_formula(name, arguments(name, affine, dtype, std=std), rtol=accuracy, atol=accuracy * max(1, std))


def with_alpha_per(alpha_per: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gives each channel an alpha of its own, or leaves alpha out."""
    alpha = torch.linspace(-0.5, 1.5, tensors["x"].shape[-1]).to(tensors["alpha"].dtype).requires_grad_()
    changed = {key: alpha if key == "alpha" else one for key, one in tensors.items()}
    return changed if alpha_per == "channel" else {key: one for key, one in changed.items() if key != "alpha"}


def called(name: str, alpha: Tensor | None = None, **rest: Tensor) -> Tensor:
    return FUNCTIONS[name](alpha=alpha, **rest)


@each_function
@pytest.mark.parametrize("alpha_per", ["channel", "none"])
def test_an_alpha_for_each_channel_or_none(name, alpha_per):
    for dtype in torch.float64, torch.float32:
        tensors = with_alpha_per(alpha_per, arguments(name, dtype=dtype))
        found, accuracy = output_and_gradients(partial(called, name), tensors), 40 * torch.finfo(dtype).eps
        for key, value in exact(name, tensors).items():
            torch.testing.assert_close(found[key].double(), value, rtol=accuracy, atol=accuracy)
    torch.compiler.reset()  # partials share a forward, which has a limit of compilations
    compiled = torch.compile(partial(called, name), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(output_and_gradients(compiled, tensors), found)
    small = with_alpha_per(alpha_per, arguments(name, shape=(2, 2, 3)))

    def function(*values: Tensor) -> Tensor:
        return called(name, **dict(zip(small, values, strict=True)))

    assert gradcheck(function, tuple(small.values()), check_batched_grad=True)
    assert gradgradcheck(function, tuple(small.values()))


@dyt_and_derf
def test_small_values_keep_their_digits(name):
    """As tanh from sigmoid would not."""
    u = torch.logspace(-7, 1, 1000)
    alpha, shift = torch.ones(1), torch.zeros(1)
    y = dyt(u, alpha) if name == "dyt" else derf(u, alpha, shift)
    expected = torch.tanh(u.double()) if name == "dyt" else torch.erf(u.double())
    torch.testing.assert_close(y.double(), expected, rtol=5e-7, atol=0)


@dyt_and_derf
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nan_stays_nan_and_infinity_is_saturated(name, dtype):
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 3e4, -3e4], dtype=dtype)[:, None].requires_grad_()
    y = FUNCTIONS[name](x, *[torch.ones(1)] * (1 if name == "dyt" else 2))
    assert y[0].isnan()
    assert y[1:].flatten().tolist() == [1, -1, 1, -1]
    assert torch.autograd.grad(y[1:].sum(), x)[0][3:].count_nonzero() == 0


@dyt_and_derf
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16])
def test_16_bit_input_is_rounded_once_at_the_end(name, dtype, parameters):
    tensors = arguments(name, dtype=parameters)
    tensors["x"] = tensors["x"].detach().to(dtype).requires_grad_()
    found = output_and_gradients(FUNCTIONS[name], tensors)
    for key, value in exact(name, tensors).items():
        assert found[key].dtype == (dtype if key in ("x", "y") else parameters)
        half_a_step = torch.finfo(found[key].dtype).eps / 2
        torch.testing.assert_close(found[key].double(), value, rtol=1.01 * half_a_step + 1e-5, atol=1e-5)


@dyt_and_derf
@pytest.mark.parametrize("shape", [(DIM,), (5, DIM), (2, 3, 2, DIM), (5, 1), (0, DIM), (2, 0, DIM), (3, 0)])
def test_any_number_of_dimensions(name, shape):
    assert_equals_formula(name, arguments(name, shape=shape))


LAYOUTS = {
    "transposed": lambda x: x.transpose(0, 1),
    "channels first": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "sliced dim": lambda x: torch.cat([x, x], -1)[..., :DIM],
    "expanded": lambda x: x[:1].expand(4, -1, -1),
}


@dyt_and_derf
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_non_contiguous_input(name, layout):
    tensors = arguments(name)
    tensors["x"] = layout(tensors["x"].detach()).requires_grad_()
    before = tensors["x"].detach().clone()
    assert_equals_formula(name, tensors)
    assert torch.equal(tensors["x"], before)


@each_function
@each_affine
def test_differentiable_twice(name, affine):
    tensors = arguments(name, affine, shape=(2, 2, 3))

    def function(*values: Tensor) -> Tensor:
        return FUNCTIONS[name](**dict(zip(tensors, values, strict=True)))

    assert gradcheck(function, tuple(tensors.values()), check_batched_grad=True)
    assert gradgradcheck(function, tuple(tensors.values()), check_batched_grad=True)


@each_function
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("alpha_per", ["layer", "channel", "none"])
def test_backward_keeps_the_input_and_nothing_else_of_its_size(name, dtype, autocast, alpha_per):
    tensors = arguments(name, dtype=torch.float32, shape=(64, 128))
    tensors = tensors if alpha_per == "layer" else with_alpha_per(alpha_per, tensors)
    tensors["x"] = x = tensors["x"].detach().to(dtype).requires_grad_()
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", enabled=autocast):
        y = called(name, **tensors)
    assert y.dtype == dtype
    assert [one.data_ptr() for one in saved if one.numel() == x.numel()] == [x.data_ptr()]
    assert sum(one.nbytes for one in saved) <= x.nbytes + 4 * (128 + 128 + 128 + 1)


@each_function
def test_compiles_into_one_graph(name):
    tensors = arguments(name, dtype=torch.float32)
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True, backend="aot_eager")
    found = output_and_gradients(compiled, tensors)
    torch.testing.assert_close(found, output_and_gradients(FUNCTIONS[name], tensors))


@pytest.mark.parametrize(
    "changed",
    [
        {"weight": torch.ones(DIM + 1)},
        {"bias": torch.ones(1)},
        {"alpha": torch.tensor(0.5)},
        {"x": torch.ones(DIM, dtype=torch.long)},
        {"x": torch.tensor(1.0)},
        {"kernel": "foo"},
    ],
    ids=str,
)
def test_refusals(changed):
    with pytest.raises(ValueError, match=next(iter(changed))):
        dyt(**{**arguments("dyt"), **changed})


def test_unknown_curves_are_refused():
    with pytest.raises(ValueError, match="isru"):
        functional.pointwise("isrv", torch.ones(2), torch.ones(1))


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Stands for the Triton kernels, on a CPU that is taken for an A100."""
    kernels = SimpleNamespace(forward=lambda x, *_: x + 7)
    monkeypatch.setattr(functional, "TRITON", True)
    monkeypatch.setattr(functional, "_kernels", lambda: kernels)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    functional._device_obstacle.cache_clear()
    yield kernels
    functional._device_obstacle.cache_clear()


def test_auto_takes_the_formula_where_triton_cannot_compile_and_warns_once(kernels):
    def forward(*_: Any) -> Tensor:
        raise RuntimeError("Failed to find C compiler.\nand much more")

    kernels.forward = forward
    x, one = torch.randn(2, 8), torch.ones(1)
    with pytest.warns(UserWarning, match="Failed to find C compiler"):
        y = dyt(x, one)
    assert torch.equal(y, dyt(x, one, kernel="plain"))
    with warnings.catch_warnings(action="error"):
        dyt(x, one)
    with pytest.raises(ValueError, match="C compiler"):
        dyt(x, one, kernel="triton")


@pytest.mark.slow
def test_importing_the_norms_imports_no_triton():
    program = f"import sys, {dyt.__module__}; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0


def test_auto_takes_triton_where_it_runs(kernels):
    """For one alpha alone, which is all that the kernels know."""
    assert torch.equal(dyt(torch.zeros(3), torch.ones(1)), torch.full((3,), 7.0))
    for alpha in torch.ones(3), None:
        assert torch.equal(dyt(torch.zeros(3), alpha), torch.zeros(3))
        with pytest.raises(ValueError, match="one alpha"):
            dyt(torch.zeros(3), alpha, kernel="triton")
