"""The Triton kernels as an operator of PyTorch: autograd, torch.compile, export, torch.func."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.norms import dyt, kernels, make_norm
from {{cookiecutter.package_name}}.norms.kernels import op

from .kernel_checks import DEVICE, NEEDS_TRITON, arguments, double, results
from .test_norms_functional import FUNCTIONS, each_function, formula

pytestmark = NEEDS_TRITON


@each_function
def test_autocast_changes_nothing(name):
    tensors = arguments(name)
    plain = results(FUNCTIONS[name], tensors, kernel="triton")
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        cast = results(FUNCTIONS[name], tensors, kernel="triton")
    assert all(torch.equal(plain[key], cast[key]) for key in plain)


@each_function
def test_backward_keeps_the_input_and_nothing_else_of_its_size(name):
    tensors = arguments(name, (64, 32))
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        FUNCTIONS[name](**tensors, kernel="triton")
    assert [t.data_ptr() for t in saved if t.numel() == 64 * 32] == [tensors["x"].data_ptr()]


@each_function
@pytest.mark.parametrize("affine", [(), ("weight",), ("weight", "bias")])
def test_opcheck(name, affine):
    tensors = arguments(name, affine=affine)
    inputs = [tensors.get(key) for key in ("x", "alpha", "shift", "weight", "bias")]
    curve = "erf" if name == "derf" else "tanh"
    torch.library.opcheck(op.pointwise, (*inputs, curve))
    plain = [None if tensor is None else tensor.detach() for tensor in inputs]
    needed = [tensor is not None for tensor in inputs]
    torch.library.opcheck(op.pointwise_backward, (torch.ones_like(tensors["x"]), *plain, curve, needed))


@each_function
def test_compiles_and_exports_as_one_operator(name):
    norm = make_norm(name, 12, device=DEVICE, kernel="triton")
    x = arguments(name)["x"]
    for backend in "eager", "aot_eager":
        compiled = torch.compile(copy.deepcopy(norm), fullgraph=True, backend=backend, dynamic=True)
        assert torch.equal(compiled(x), norm(x))
        compiled(x).sum().backward()
    program = torch.export.export(norm, (x.detach(),))
    assert [node.target for node in program.graph.nodes if "pointwise" in str(node.target)] == [
        op.pointwise._opoverload
    ]
    assert torch.equal(program.module()(x), norm(x))


@each_function
def test_compiled_backward_is_the_other_operator(name):
    graphs: list[list[Any]] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append([node.target for node in graph.graph.nodes if "pointwise" in str(node.target)])
        return make_boxed_func(graph.forward)

    norm = make_norm(name, 12, device=DEVICE, kernel="triton")
    compiled = torch.compile(norm, fullgraph=True, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))
    compiled(arguments(name)["x"]).sum().backward()
    assert graphs == [[op.pointwise._opoverload], [op.pointwise_backward._opoverload]]


@each_function
def test_under_compile_auto_is_the_formula(name):
    norm = make_norm(name, 12, device=DEVICE)
    nodes: list[str] = []

    def backend(graph, _):
        nodes.append(graph.print_readable(print_output=False))
        return graph

    torch.compile(norm, fullgraph=True, backend=backend)(arguments(name)["x"])
    assert nodes
    assert "pointwise." not in "".join(nodes)


@each_function
def test_second_derivatives(name):

    def second(function: Callable[..., Tensor], tensors: dict[str, Tensor], **options: Any) -> tuple[Tensor, ...]:
        given = list(tensors.values())
        first = torch.autograd.grad(function(**tensors, **options).sum(), given, create_graph=True)
        size = torch.stack([gradient.double().square().sum() for gradient in first]).sum()
        return torch.autograd.grad(size, given, materialize_grads=True)

    tensors = arguments(name, (2, 3))
    found, expected = second(FUNCTIONS[name], tensors, kernel="triton"), second(formula, double(tensors))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


@each_function
def test_activation_checkpointing(name):
    tensors = arguments(name)

    def function(**given: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(lambda: FUNCTIONS[name](**given, kernel="triton"), use_reentrant=False)

    torch.testing.assert_close(results(function, tensors), results(FUNCTIONS[name], tensors, kernel="triton"))


@each_function
def test_batched_output_gradients(name):
    tensors = arguments(name)
    given = list(tensors.values())
    y = FUNCTIONS[name](**tensors, kernel="triton")
    dys = torch.stack([torch.ones_like(y), torch.zeros_like(y), y.detach()])
    batched = torch.autograd.grad(y, given, dys, is_grads_batched=True, retain_graph=True)
    for i, dy in enumerate(dys):
        expected = torch.autograd.grad(y, given, dy, retain_graph=True)
        torch.testing.assert_close([gradient[i] for gradient in batched], list(expected), rtol=1e-5, atol=1e-5)


def test_torch_func_is_refused():
    tensors = {key: tensor.detach() for key, tensor in arguments("dyt").items()}
    for transform in (
        torch.func.grad(lambda x: dyt(**{**tensors, "x": x}, kernel="triton").sum()),
        torch.func.vmap(lambda x: dyt(**{**tensors, "x": x}, kernel="triton")),
    ):
        with pytest.raises(UsageError, match=r"norm.kernel=triton: torch.func cannot transform its kernels; choose"):
            transform(tensors["x"])


def test_what_it_refuses():
    x = torch.ones(2, 12, dtype=torch.float64, device=DEVICE)
    with pytest.raises(UsageError, match="its kernels take float32, bfloat16 and float16, not float64"):
        dyt(x, torch.ones(1), kernel="triton")
    assert kernels.obstacle(x.float()) is None
    long = torch.ones(1, 2**20 + 1, device=DEVICE)
    with pytest.raises(UsageError, match="its kernels take rows of at most 1048576 numbers, not of 1048577"):
        dyt(long, torch.ones(1), kernel="triton")
    assert kernels.obstacle(long[:, 1:]) is None
