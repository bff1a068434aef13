"""The Triton kernels against float64: on the GPU, or on small shapes in Triton's interpreter.

Triton chooses between them when it is imported, so that without a GPU test_norms_kernels_interpreted.py runs this file
and test_norms_kernels_operator.py in a process of their own. `pytest -m gpu` runs all of it on a GPU.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from {{cookiecutter.package_name}}.norms import derf, dyt, make_norm
from {{cookiecutter.package_name}}.norms.kernels import accuracy

from .kernel_checks import DEVICE, NEEDS_TRITON, arguments, double, results
from .test_norms_functional import AFFINE, FUNCTIONS, each_function, formula

pytestmark = NEEDS_TRITON
on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs an NVIDIA GPU")


def assert_equals_formula(name: str, tensors: dict[str, Tensor]) -> None:
    """Within rounding to the dtype at hand, the stated error of the curve, and fp32 sums."""
    found, expected = results(FUNCTIONS[name], tensors, kernel="triton"), results(formula, double(tensors))
    low = tensors["x"].dtype != torch.float32
    for key, value in expected.items():
        dtype = tensors["x" if key == "y" else key].dtype
        assert (found[key].dtype, found[key].shape) == (dtype, value.shape), key
        f_error = 6e-4 if low and key in ("y", "weight") else 1e-6  # hardware tanh, and erf of 16 bits
        summed = tensors["x"].numel() / value.numel() if key not in ("y", "x") else 1
        absolute = f_error * 3 * max(1.0, math.sqrt(summed))
        # The interpreter cuts bf16 off where GPUs round.
        step = torch.finfo(dtype).eps * (1 if DEVICE == "cpu" and dtype == torch.bfloat16 else 0.5)
        torch.testing.assert_close(found[key].double(), value, rtol=step + 1e-5, atol=absolute)


@each_function
@pytest.mark.parametrize("affine", AFFINE.values(), ids=AFFINE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients(name, affine, dtype):
    assert_equals_formula(name, arguments(name, (5, 12), dtype, affine))


@each_function
@pytest.mark.parametrize("shape", [(1, 1), (7,), (70, 64), (3, 5, 300), (40, 129), (2, 1024), (4, 256)])
def test_shapes(name, shape):
    assert_equals_formula(name, arguments(name, shape))
    assert_equals_formula(name, arguments(name, shape, affine=()))


@on_gpu
@each_function
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(2048, 64), (8192, 384), (1000, 1000), (4096, 768), (777, 4097), (300, 16384), (200_000, 128)]
)
def test_large_shapes(name, dtype, shape):
    assert_equals_formula(name, arguments(name, shape, dtype))


@on_gpu
@each_function
def test_more_than_2_to_the_31_elements(name):
    x = torch.zeros(2**31 // 1024 + 3, 1024, dtype=torch.bfloat16, device="cuda")
    x[-1] = 1
    norm = make_norm(name, 1024, device="cuda")
    x, small = x.requires_grad_(), x[-2:].clone().requires_grad_()
    y, expected = norm(x), norm(small)
    assert torch.equal(y[-2:], expected)
    gradients = [torch.autograd.grad(out.sum(), to)[0][-2:] for out, to in ((y, x), (expected, small))]
    assert torch.equal(*gradients)


@each_function
@pytest.mark.parametrize("parameters", [torch.bfloat16, torch.float64])
def test_gradients_have_the_dtype_of_their_parameter(name, parameters):
    assert_equals_formula(name, arguments(name, dtype=torch.bfloat16, parameters=parameters))


@each_function
@pytest.mark.parametrize("shape", [(0, 12), (2, 0, 12), (3, 0)])
def test_empty_input_has_zero_gradients(name, shape):
    found = results(FUNCTIONS[name], arguments(name, shape), kernel="triton")
    assert found["y"].shape == found["x"].shape == shape
    assert not any(gradient.any() for gradient in found.values())


@each_function
def test_non_contiguous_input(name):
    tensors = arguments(name, (4, 6, 12))
    x = tensors["x"].detach()
    for view in x.transpose(0, 1), x[::2], x[:1].expand(3, -1, -1), torch.cat([x, x], -1)[..., :12]:
        assert_equals_formula(name, {**tensors, "x": view.requires_grad_()})


@each_function
def test_non_contiguous_parameters_and_output_gradient(name):
    tensors = arguments(name)
    both = torch.stack([tensors.pop("weight").detach(), tensors.pop("bias").detach()], 1)
    views = {"weight": both[:, 0].requires_grad_(), "bias": both[:1, 1].expand(12).requires_grad_()}
    assert_equals_formula(name, {**tensors, **views})
    y = FUNCTIONS[name](**tensors, kernel="triton")
    same = torch.autograd.grad(y, tensors["x"], torch.ones_like(y), retain_graph=True)
    assert torch.equal(torch.autograd.grad(y.sum(), tensors["x"])[0], same[0])  # sum's gradient is expanded


@each_function
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nan_stays_nan_and_infinity_is_saturated(name, dtype):
    x = torch.tensor([[math.nan, math.inf, -math.inf, 3e4, -3e4]], device=DEVICE).to(dtype).requires_grad_()
    scalars = [torch.ones(1, device=DEVICE)] * (1 if name == "dyt" else 2)
    y = FUNCTIONS[name](x, *scalars, kernel="triton")
    gradient = torch.autograd.grad(y.sum(), x)[0][0]
    assert y[0, 0].isnan()
    assert gradient[0].isnan()
    torch.testing.assert_close(y[0, 1:].tolist(), [1.0, -1.0] * 2, rtol=0, atol=4e-3)
    assert not gradient[1:].any()


@each_function
def test_only_what_is_needed_is_computed_and_it_is_the_same(name):
    tensors = arguments(name, (9, 40))
    everything = results(FUNCTIONS[name], tensors, kernel="triton")
    for key in tensors:
        some = {k: t.detach().requires_grad_(k == key) for k, t in tensors.items()}
        y = FUNCTIONS[name](**some, kernel="triton")
        dy = torch.randint(-127, 128, y.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE, y.dtype) / 64
        assert torch.equal(torch.autograd.grad(y, some[key], dy)[0], everything[key])


@each_function
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_runs_agree_bit_for_bit(name, dtype):
    tensors = arguments(name, (300, 96) if DEVICE == "cpu" else (50_000, 768), dtype)
    first, second = (results(FUNCTIONS[name], tensors, kernel="triton") for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def errors(curve: Callable[..., Any], exact: Callable[[Tensor], Tensor], u: Tensor, relative: bool) -> float:
    error = (curve(u).double() - exact(u.double())).abs()
    return (error / exact(u.double()).abs() if relative else error).max().item()


def test_curves_keep_to_their_stated_errors():
    """Through the kernels: alpha 1, weight 1. The hardware's tanh is off by more than that of the interpreter."""
    one, zero = torch.ones(1, device=DEVICE), torch.zeros(1, device=DEVICE)
    u = torch.cat([torch.linspace(1e-3, 9, 6000), torch.logspace(-6, 1, 2000)]).to(DEVICE)
    u = torch.cat([u, -u])[:, None]
    assert errors(lambda u: dyt(u, one, kernel="triton"), torch.tanh, u, True) < (4e-7 if DEVICE == "cuda" else 3e-7)
    assert errors(lambda u: derf(u, one, zero, kernel="triton"), torch.erf, u, True) < 3e-7
    low = u.to(torch.float16)
    half_a_step = 2**-12
    error = errors(lambda u: derf(u, one, zero, kernel="triton"), torch.erf, low, False)
    assert error < half_a_step + 1.5e-4
    error = errors(lambda u: dyt(u, one, kernel="triton"), torch.tanh, low, False)
    assert error < half_a_step + (2**-11 if DEVICE == "cuda" else 0) + 1e-6


@each_function
def test_slopes_keep_to_their_stated_errors(name):
    """Also where the curve is nearly 1, and 1 - f * f of it would be 0."""
    u = torch.linspace(-9, 9, 4001, device=DEVICE)[:, None].requires_grad_()
    scalars = [torch.ones(1, device=DEVICE), torch.zeros(1, device=DEVICE)][: 1 if name == "dyt" else 2]
    slope = torch.autograd.grad(FUNCTIONS[name](u, *scalars, kernel="triton").sum(), u)[0].double()
    v = u.detach().double()
    exact = 1 / torch.cosh(v).square() if name == "dyt" else 2 / math.sqrt(math.pi) * torch.exp(-v.square())
    assert ((slope - exact).abs() - 4e-6 * exact).max() < 1e-12


@each_function
@pytest.mark.parametrize("kernel", ["plain", "triton"])
@pytest.mark.parametrize("dtype", accuracy.DTYPES)
def test_accuracy(name, kernel, dtype):
    """The bounds behind the table of docs/kernels.md. y reaches 4, and there its dtype takes steps of 4 eps."""
    eps = torch.finfo(dtype).eps
    for std in accuracy.STDS:
        found = accuracy.errors(name, kernel, dtype, std, rows=32)
        assert found["y"][0] < 4 * eps
        assert found["gradient of x"][0] < 8 * eps
        assert found["gradients of parameters"][0] < (1e-4 if dtype == torch.float32 else 1e-3)
