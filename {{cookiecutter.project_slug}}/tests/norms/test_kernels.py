"""The Triton kernels against float64: on the GPU, or on small shapes in Triton's interpreter.

Triton chooses between them when it is imported, so without a GPU the first test runs the others in a process of their
own: `pytest -m slow tests/norms/test_kernels.py`.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from {{cookiecutter.package_name}}.norms.functional import INTERPRETED

from .test_functional import AFFINE, FUNCTIONS, arguments, dyt_and_derf, exact, output_and_gradients

GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
pytestmark = [
    pytest.mark.slow,
    *([pytest.mark.gpu] if GPU else []),
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton"),
]
runs = pytest.mark.skipif(not (GPU or INTERPRETED), reason="needs an NVIDIA GPU, or TRITON_INTERPRET=1")


@pytest.mark.skipif(INTERPRETED or GPU, reason="they run by themselves")
def test_kernels_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-x", "-n0", "-m", "slow", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-1000:]
    assert " passed" in run.stdout


def assert_equals_formula(name: str, tensors: dict[str, Tensor]) -> None:
    """Within the rounding of the dtype at hand; the interpreter cuts bf16 off where a GPU rounds."""
    expected = exact(name, tensors)
    given = {key: one.detach().to(DEVICE).requires_grad_() for key, one in tensors.items()}
    found = output_and_gradients(FUNCTIONS[name], given, kernel="triton")
    for key, value in expected.items():
        dtype = tensors["x" if key == "y" else key].dtype
        assert (found[key].dtype, found[key].shape) == (dtype, value.shape), key
        summed = tensors["x"].numel() / max(1, value.numel())
        torch.testing.assert_close(
            found[key].double().cpu(), value, rtol=torch.finfo(dtype).eps + 1e-5, atol=1e-6 * max(1.0, summed**0.5)
        )


@runs
@dyt_and_derf
@pytest.mark.parametrize("affine", AFFINE.values(), ids=AFFINE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients(name, affine, dtype):
    tensors = arguments(name, affine, torch.float32, (5, 12))
    assert_equals_formula(name, {**tensors, "x": tensors["x"].detach().to(dtype).requires_grad_()})


@runs
@dyt_and_derf
@pytest.mark.parametrize("shape", [(1, 1), (7,), (3, 5, 300), (4, 256), (0, 12), (3, 0)])
def test_shapes(name, shape):
    assert_equals_formula(name, arguments(name, dtype=torch.float32, shape=shape))


@pytest.mark.skipif(not GPU, reason="needs an NVIDIA GPU")
@dyt_and_derf
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2048, 64), (8192, 384), (777, 4097), (200_000, 128)])
def test_large_shapes(name, dtype, shape):
    tensors = arguments(name, dtype=torch.float32, shape=shape)
    assert_equals_formula(name, {**tensors, "x": tensors["x"].detach().to(dtype).requires_grad_()})


@runs
@dyt_and_derf
def test_non_contiguous_tensors(name):
    tensors = arguments(name, dtype=torch.float32, shape=(4, 6, 12))
    x, both = tensors["x"].detach(), torch.stack([tensors["weight"].detach(), tensors["bias"].detach()], 1)
    views = {"weight": both[:, 0].requires_grad_(), "bias": both[:1, 1].expand(12).requires_grad_()}
    assert_equals_formula(name, {**tensors, **views, "x": x.transpose(0, 1).requires_grad_()})
    assert_equals_formula(name, {**tensors, "x": x[:1].expand(3, -1, -1).requires_grad_()})


@runs
@dyt_and_derf
def test_second_derivatives_come_from_torch(name):
    tensors = {
        key: one.detach().to(DEVICE).requires_grad_() for key, one in arguments(name, dtype=torch.float32).items()
    }

    def second(kernel: str) -> list[Tensor]:
        y = FUNCTIONS[name](**tensors, kernel=kernel)
        first = torch.autograd.grad(y.square().sum(), list(tensors.values()), create_graph=True)
        return list(
            torch.autograd.grad(torch.cat([one.flatten() for one in first]).square().sum(), list(tensors.values()))
        )

    torch.testing.assert_close(second("triton"), second("plain"), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@dyt_and_derf
def test_kernels_compile_for_hopper_without_a_gpu(name, monkeypatch):
    """The interpreter checks no types. Loads and stores are of 128 bits, and nothing is atomic."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from {{cookiecutter.package_name}}.norms import _kernels

    ptx: dict[str, str] = {}

    def launch(kernel: Any, *positional: Any, **named: Any) -> None:
        given = dict(zip(kernel.arg_names, positional, strict=False)) | named
        options = {key: given.pop(key) for key in list(given) if key not in kernel.arg_names}
        types = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}
        signature = {key: types[one.dtype] if isinstance(one, Tensor) else "constexpr" for key, one in given.items()}
        signature |= {"M": "i32", "N": "i32"}
        aligned = [
            i for i, key in enumerate(given) if key == "N" or (getattr(given[key], "ndim", 0) and len(given[key]) > 1)
        ]
        values = {key: given[key] for key, kind in signature.items() if kind == "constexpr"}
        source = ASTSource(kernel, signature, values, {(i,): [["tt.divisibility", 16]] for i in aligned})
        ptx[kernel.fn.__name__] = compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]

    for kernel in "_forward", "_backward":
        monkeypatch.setattr(_kernels, kernel, defaultdict(partial(partial, launch, getattr(_kernels, kernel))))
    x, vector, scalar = (torch.empty(*shape, device="meta") for shape in ((64, 384), (384,), (1,)))
    shift = scalar if name == "derf" else None
    _kernels.forward(x.bfloat16(), scalar, shift, vector, vector)
    _kernels.backward(x.bfloat16(), x.bfloat16(), scalar, shift, vector, vector)
    assert set(ptx) == {"_forward", "_backward"}
    for text in ptx.values():
        assert re.search(r"ld\.global\S*\.v4\.b32", text)
        assert re.search(r"st\.global\S*\.v4\.b32", text)
        assert not re.search(r"\b(atom|red)\.", text)
