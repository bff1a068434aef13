"""The other test_norms_kernels*.py in Triton's interpreter, without a GPU, and the kernels through its compiler."""

import importlib.util
import os
import re
import subprocess
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.norms import derf, dyt, kernels, make_norm
from {{cookiecutter.package_name}}.norms.kernels import op

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or op.INTERPRETED,
    reason="needs Triton, whose interpreter compiles nothing",
)
PROJECT = Path(__file__).parents[2]


@needs_triton
@pytest.mark.skipif(op.INTERPRETED or torch.cuda.is_available(), reason="they run by themselves")
def test_kernels_in_the_interpreter():
    parts = set(Path(__file__).parent.glob("test_norms_kernels*.py")) - {Path(__file__)}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *map(str, sorted(parts))]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-1000:]
    assert " passed" in run.stdout


Compiled = Callable[..., dict[str, Any]]  # what Triton makes of each kernel, by the kernel's name


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    """Forward and backward of bf16 tensors that are not there: what they launch is compiled for Hopper instead."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from {{cookiecutter.package_name}}.norms.kernels import triton_pointwise, triton_reduce

    found: dict[str, Any] = {}

    def launch(kernel: Any, *positional: Any, **named: Any) -> None:
        given = dict(zip(kernel.arg_names, positional, strict=False)) | named
        options = {name: given.pop(name) for name in list(given) if name not in kernel.arg_names}
        types = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}
        signature = {name: types[one.dtype] if isinstance(one, Tensor) else "constexpr" for name, one in given.items()}
        signature |= {name: "i32" for name in ("M", "groups") if name in given}
        aligned = [i for i, name in enumerate(given) if isinstance(given[name], Tensor) and given[name].numel() > 1]
        values = {name: given[name] for name, kind in signature.items() if kind == "constexpr"}
        source = ASTSource(kernel, signature, values, {(i,): [["tt.divisibility", 16]] for i in aligned})
        found[kernel.fn.__name__] = compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm

    for module, name in (triton_pointwise, "_forward"), (triton_pointwise, "_backward"), (triton_reduce, "_reduce"):
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, defaultdict(partial(partial, launch, kernel)))  # whatever the grid

    def run(width: int, curve: str = "tanh", affine: bool = True, parameters: bool = True) -> dict[str, Any]:
        x, weight = (torch.empty(*shape, device="meta", dtype=torch.bfloat16) for shape in ((64, width), (width,)))
        alpha = torch.empty(1, device="meta")
        shift, vector = alpha if curve == "erf" else None, weight.float() if affine else None
        triton_pointwise.forward(x, alpha, shift, vector, vector, curve)
        inputs = [x, alpha, shift, vector, vector]
        wanted = [one if parameters or one is x else None for one in inputs]
        triton_pointwise.backward(x, x, alpha, shift, vector, wanted, curve)
        return found

    return run


@needs_compiler
@pytest.mark.parametrize("curve", ["tanh", "erf"])
@pytest.mark.parametrize("width", [96, 384])
def test_kernels_compile_for_hopper_without_a_gpu(curve, width, compiled):
    """The interpreter checks no types. Loads are of 128 bits, tanh is the hardware's, and nothing is atomic."""
    ptx = {name: asm["ptx"] for name, asm in compiled(width, curve).items()}
    assert set(ptx) == {"_forward", "_backward", "_reduce"}
    for name in "_forward", "_backward":
        assert "ld.global.v4.b32" in ptx[name]
        assert "st.global.v4.b32" in ptx[name]
    assert ".maxnreg 96" in ptx["_backward"]
    assert ("tanh.approx.f32" in ptx["_forward"]) == (curve == "tanh")
    assert not re.search(r"\b(atom|red)\.", "".join(ptx.values()))


@needs_compiler
def test_what_is_left_out_is_not_compiled(compiled):
    assert len(re.findall(r"st\.global", compiled(40, affine=False)["_reduce"]["ptx"])) == 1, "of alpha"
    ptx = compiled(384, parameters=False)["_backward"]["ptx"]
    assert len(re.findall(r"st\.global", ptx)) == 2, "of dx, a tile of either half"


@needs_triton
@pytest.mark.parametrize(
    ("width", "columns"),
    [(1, 1), (64, 64), (72, 32), (96, 32), (300, 64), (384, 128), (1152, 128), (4096, 256), (4100, 256)],
)
def test_tiles_fit_the_width(width, columns):
    from {{cookiecutter.package_name}}.norms.kernels import triton_pointwise

    assert triton_pointwise.blocks(width, 1024) == (1024 // columns, columns)


@needs_triton
def test_tiles_of_odd_widths_stay_wide():
    from {{cookiecutter.package_name}}.norms.kernels import triton_pointwise

    assert [triton_pointwise.blocks(width, 1024)[1] for width in (65, 129, 777)] == [128, 256, 128]


@needs_triton
@pytest.mark.parametrize(("tiles", "at_most", "groups"), [(128, 41, 32), (128, 128, 128), (3, 41, 3), (5, 0, 1)])
def test_groups_share_the_tiles_evenly(tiles, at_most, groups):
    from {{cookiecutter.package_name}}.norms.kernels import triton_pointwise

    assert triton_pointwise.even(tiles, at_most) == groups


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


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU, taken for an A100."""
    monkeypatch.setattr(op, "INSTALLED", True)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    op._lack.cache_clear()
    yield
    op._lack.cache_clear()


@pytest.mark.usefixtures("gpu")
@pytest.mark.skipif(op.INTERPRETED, reason="the interpreter compiles nothing")
def test_where_triton_cannot_build_auto_is_plain_and_says_why_once(monkeypatch):
    launches: list[torch.Size] = []

    def forward(x: Tensor, *_: Any) -> Tensor:
        launches.append(x.shape)
        raise RuntimeError("Failed to find C compiler.\nand much more")

    monkeypatch.setattr(op, "_kernels", lambda: SimpleNamespace(forward=forward))
    x, one = torch.randn(2, 8), torch.ones(1)
    why = r"its kernels do not compile here: Failed to find C compiler\."
    with pytest.warns(UserWarning, match=rf"^norm.kernel=auto takes the formula, not Triton: {why}$"):
        y = dyt(x, one)
    assert torch.equal(y, dyt(x, one, kernel="plain"))
    with warnings.catch_warnings(action="error"):
        dyt(x, one)
    with pytest.raises(UsageError, match=rf"^norm.kernel=triton: {why}; choose auto or plain$"):
        dyt(x, one, kernel="triton")
    assert launches == [(1,)]


@pytest.mark.usefixtures("gpu")
@pytest.mark.skipif(op.INTERPRETED, reason="the interpreter compiles nothing")
def test_where_triton_builds_its_kernels_are_taken(monkeypatch):
    monkeypatch.setattr(op, "_kernels", lambda: SimpleNamespace(forward=lambda x, *_: x + 7))
    assert torch.equal(dyt(torch.zeros(3), torch.ones(1)), torch.full((3,), 7.0))


@pytest.mark.usefixtures("gpu")
@needs_triton
def test_an_older_gpu_is_refused_by_the_operator_too(monkeypatch):
    """While torch.compile traces, nobody asks the device."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(UsageError, match=r"triton: .* from Ampere on, not for Tesla T4; choose auto or plain$"):
        op.pointwise(torch.ones(2, 8), torch.ones(1), None, None, None, "tanh")


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
