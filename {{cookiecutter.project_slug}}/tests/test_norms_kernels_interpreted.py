"""The other test_norms_kernels*.py in Triton's interpreter, without a GPU, and the kernels through its compiler."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.norms import derf, dyt, kernels, make_norm
from {{cookiecutter.package_name}}.norms.kernels import op

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
PROJECT = Path(__file__).parents[1]


@needs_triton
@pytest.mark.skipif(op.INTERPRETED or torch.cuda.is_available(), reason="they run by themselves")
def test_kernels_in_the_interpreter():
    parts = set(Path(__file__).parent.glob("test_norms_kernels*.py")) - {Path(__file__)}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *map(str, sorted(parts))]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-1000:]
    assert " passed" in run.stdout


@needs_triton
@pytest.mark.skipif(op.INTERPRETED, reason="the interpreter compiles nothing")
def test_kernels_compile_for_hopper_without_a_gpu():
    """The interpreter checks no types. Loads are of 128 bits, tanh is the hardware's, and nothing is atomic."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from {{cookiecutter.package_name}}.norms.kernels import triton_pointwise

    constants = {"N": 384, "ERF": False, "BLOCK_M": 8, "BLOCK_N": 128}
    constants |= {"ALPHA": True, "SHIFT": False, "WEIGHT": True, "BIAS": True}
    for kernel in triton_pointwise._forward, triton_pointwise._backward:
        names = kernel.arg_names
        types = dict.fromkeys(("x_ptr", "y_ptr", "dy_ptr", "dx_ptr"), "*bf16") | {"shift_ptr": "constexpr"}
        types |= {"M": "i32"} | {key: "*fp32" for key in names if key.endswith("_ptr") and key not in types}
        signature = {name: types.get(name, "constexpr") for name in names}
        pointers = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name][0] == "*"}
        values = {name: constants.get(name) for name in names if signature[name] == "constexpr"}
        source = ASTSource(kernel, signature, values, pointers)
        backward = kernel is triton_pointwise._backward
        options = triton_pointwise.BACKWARD_OPTIONS[2] if backward else triton_pointwise.OPTIONS
        ptx = compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
        assert (".maxnreg 96" in ptx) == backward
        assert "ld.global.v4.b32" in ptx
        assert "st.global.v4.b32" in ptx
        assert ("tanh.approx.f32" in ptx) == (not backward)
        assert not re.search(r"\b(atom|red)\.", ptx)


def test_importing_the_norms_imports_no_triton():
    program = f"import sys, {dyt.__module__}; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=PROJECT).returncode == 0


@pytest.mark.skipif(op.INTERPRETED, reason="the interpreter takes tensors of the CPU")
def test_triton_on_the_cpu_is_refused(monkeypatch):
    x, one = torch.ones(2, 8), torch.ones(1)
    monkeypatch.setattr(op, "INSTALLED", True)
    message = r"norm.kernel=triton: its kernels take tensors of an NVIDIA GPU, not of cpu; choose auto or plain$"
    with pytest.raises(UsageError, match=message):
        dyt(x, one, kernel="triton")
    with pytest.raises(UsageError, match=message):
        make_norm("derf", 8, kernel="triton")(x)
    monkeypatch.setattr(op, "INSTALLED", False)
    with pytest.raises(UsageError, match="Triton is not installed; it comes with PyTorch's CUDA builds for Linux"):
        derf(x, one, one, kernel="triton")


def test_auto_on_the_cpu_is_plain():
    x, one = torch.randn(2, 8), torch.ones(1)
    assert torch.equal(dyt(x, one), dyt(x, one, kernel="plain"))


def test_an_unknown_kernel_is_refused():
    with pytest.raises(UsageError, match=r"norm.kernel=foo: choose auto, triton or plain$"):
        make_norm("dyt", 8, kernel="foo")
    with pytest.raises(UsageError, match=r"norm.kernel=None: choose auto, triton or plain$"):
        dyt(torch.ones(2), torch.ones(1), kernel=None)  # type: ignore[arg-type]


@needs_triton
def test_operator_on_meta_tensors():
    x, one = torch.empty(2, 8, device="meta", requires_grad=True), torch.ones(1, device="meta")
    y = dyt(x, one, kernel="triton")
    assert y.is_meta
    assert torch.autograd.grad(y, x, torch.empty_like(y))[0].shape == x.shape
    assert kernels.obstacle(x) is None
