"""dyt and derf against their formulas, written out here in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from {{cookiecutter.package_name}}.norms import derf, dyt, plain

DIM = 6
FUNCTIONS: dict[str, Callable[..., Tensor]] = {"dyt": dyt, "derf": derf}
AFFINE = {"weight and bias": ("weight", "bias"), "weight": ("weight",), "bias": ("bias",), "neither": ()}

each_function = pytest.mark.parametrize("name", FUNCTIONS)
each_affine = pytest.mark.parametrize("affine", AFFINE.values(), ids=AFFINE)


@pytest.fixture(params=["whole", "in chunks"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways of large and of small inputs on the CPU, on the same small ones: two or three of their rows a chunk."""
    if request.param == "in chunks":
        monkeypatch.setattr(plain, "SMALL", 1)
        monkeypatch.setattr(plain, "CHUNK", 15)


def formula(x: Tensor, alpha: Tensor, **rest: Tensor) -> Tensor:
    f = torch.erf(alpha * x + rest["shift"]) if "shift" in rest else torch.tanh(alpha * x)
    return rest.get("weight", 1) * f + rest.get("bias", 0)


def arguments(name: str, affine=("weight", "bias"), dtype=torch.float64, shape=(4, 3, DIM)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {"x": 2 * draw(*shape), "alpha": torch.tensor([0.7]), "shift": torch.tensor([-0.3])}
    tensors |= {"weight": draw(shape[-1]), "bias": draw(shape[-1])}
    wanted = ("x", "alpha", *(["shift"] if name == "derf" else []), *affine)
    return {key: tensors[key].to(dtype).requires_grad_() for key in wanted}


def output_gradient(y: Tensor) -> Tensor:
    """Random numbers of seven bits, the same in every dtype."""
    return torch.randint(-127, 128, y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype) / 64


def output_and_gradients(function: Callable[..., Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    y = function(**tensors)
    gradients = torch.autograd.grad(y, list(tensors.values()), output_gradient(y))
    return {"y": y.detach(), **dict(zip(tensors, gradients, strict=True))}


def assert_equals_formula(name: str, tensors: dict[str, Tensor], **tolerance: Any) -> None:
    found = output_and_gradients(FUNCTIONS[name], tensors)
    expected = output_and_gradients(formula, {k: t.detach().double().requires_grad_() for k, t in tensors.items()})
    for key, value in expected.items():
        assert found[key].dtype == tensors["x" if key == "y" else key].dtype, key
        torch.testing.assert_close(found[key].double(), value, **tolerance)


@pytest.mark.usefixtures("each_way")
@each_function
@each_affine
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients(name, affine, dtype):
    accuracy = 20 * torch.finfo(dtype).eps
    assert_equals_formula(name, arguments(name, affine, dtype), rtol=accuracy, atol=accuracy)


@pytest.mark.usefixtures("each_way")
@each_function
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16])
def test_16_bit_input_is_rounded_once_at_the_end(name, dtype, parameters):
    tensors = arguments(name, dtype=parameters)
    tensors["x"] = tensors["x"].detach().to(dtype).requires_grad_()
    found = output_and_gradients(FUNCTIONS[name], tensors)
    expected = output_and_gradients(formula, {k: t.detach().double().requires_grad_() for k, t in tensors.items()})
    for key, value in expected.items():
        assert found[key].dtype == (dtype if key in ("x", "y") else parameters)
        half_a_step = torch.finfo(found[key].dtype).eps / 2
        torch.testing.assert_close(found[key].double(), value, rtol=1.01 * half_a_step + 1e-5, atol=1e-5)


@pytest.mark.usefixtures("each_way")
@each_function
@pytest.mark.parametrize("shape", [(DIM,), (1, DIM), (5, DIM), (2, 3, DIM), (2, 3, 2, DIM), (2, 1, 3, 2, DIM), (5, 1)])
def test_any_number_of_dimensions(name, shape):
    assert_equals_formula(name, arguments(name, shape=shape))


@pytest.mark.usefixtures("each_way")
@each_function
@pytest.mark.parametrize("shape", [(0, DIM), (2, 0, DIM), (3, 0)])
def test_empty_input_has_zero_gradients(name, shape):
    found = output_and_gradients(FUNCTIONS[name], arguments(name, shape=shape))
    assert found["y"].shape == found["x"].shape == shape
    assert not any(gradient.any() for gradient in found.values())


LAYOUTS = {
    "transposed": lambda x: x.transpose(0, 1),
    "channels first": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "every other": lambda x: x[::2, :, :],
    "sliced dim": lambda x: torch.cat([x, x], -1)[..., :DIM],
    "expanded": lambda x: x[:1].expand(4, -1, -1),
}


@pytest.mark.usefixtures("each_way")
@each_function
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_non_contiguous_input(name, layout):
    tensors = arguments(name)
    tensors["x"] = layout(tensors["x"].detach()).requires_grad_()
    before = tensors["x"].detach().clone()
    assert_equals_formula(name, tensors)
    torch.testing.assert_close(tensors["x"].detach(), before, rtol=0, atol=0)


@pytest.mark.usefixtures("each_way")
@each_function
@each_affine
def test_numerical_gradients(name, affine):
    tensors = arguments(name, affine, shape=(2, 2, 3))

    def function(*values: Tensor) -> Tensor:
        return FUNCTIONS[name](**dict(zip(tensors, values, strict=True)))

    assert gradcheck(function, tuple(tensors.values()), check_batched_grad=True)
    assert gradgradcheck(function, tuple(tensors.values()), check_batched_grad=True)


@pytest.mark.usefixtures("each_way")
@each_function
def test_gradients_of_frozen_parameters_and_of_frozen_input(name):
    tensors = arguments(name)
    everything = output_and_gradients(FUNCTIONS[name], tensors)
    for key in tensors:
        some = {k: t.detach().requires_grad_(k == key) for k, t in tensors.items()}
        y = FUNCTIONS[name](**some)
        torch.testing.assert_close(torch.autograd.grad(y, some[key], output_gradient(y))[0], everything[key])


@pytest.mark.usefixtures("each_way")
@each_function
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_backward_keeps_the_input_and_nothing_else_of_its_size(name, dtype, autocast):
    tensors = arguments(name, dtype=torch.float32, shape=(64, 128))
    tensors["x"] = x = tensors["x"].detach().to(dtype).requires_grad_()
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", enabled=autocast):
        y = FUNCTIONS[name](**tensors)
    assert y.dtype == dtype
    assert sum(tensor.nbytes for tensor in saved) <= x.nbytes + 4 * (128 + 128 + 1 + 1)
    assert any(tensor.data_ptr() == x.data_ptr() for tensor in saved)


@each_function
def test_autocast_changes_nothing(name):
    tensors = arguments(name, dtype=torch.float32)
    plain = output_and_gradients(FUNCTIONS[name], tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = output_and_gradients(FUNCTIONS[name], tensors)
    assert all(torch.equal(plain[key], cast[key]) for key in plain)


@each_function
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_into_one_graph(name, backend):
    tensors = arguments(name, dtype=torch.float32)
    compiled = output_and_gradients(torch.compile(FUNCTIONS[name], fullgraph=True, backend=backend), tensors)
    torch.testing.assert_close(compiled, output_and_gradients(FUNCTIONS[name], tensors))


@pytest.mark.usefixtures("each_way")
@each_function
def test_gradients_of_each_sample(name):
    tensors = {key: tensor.detach() for key, tensor in arguments(name).items()}
    x = tensors.pop("x")

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return FUNCTIONS[name](sample, **parameters).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(tensors, x)
    for i, sample in enumerate(x):
        expected = torch.func.grad(lambda parameters, s=sample: formula(s, **parameters).square().sum())(tensors)
        torch.testing.assert_close({key: gradient[i] for key, gradient in gradients.items()}, expected)


@each_function
@pytest.mark.parametrize("grad", [False, True])
def test_forward_mode_is_refused_outside_of_torch_func(name, grad):
    tensors = {key: tensor.detach() for key, tensor in arguments(name).items()}
    x, tangent = tensors.pop("x"), torch.ones(4, 3, DIM, dtype=torch.float64)
    exact = torch.func.jvp(lambda x: formula(x, **tensors), (x,), (tangent,))[1]
    torch.testing.assert_close(torch.func.jvp(lambda x: FUNCTIONS[name](x, **tensors), (x,), (tangent,))[1], exact)
    with forward_ad.dual_level(), torch.set_grad_enabled(grad):
        dual = forward_ad.make_dual(x, tangent)
        with pytest.raises(NotImplementedError, match="jvp"):
            FUNCTIONS[name](dual, **tensors)


@each_function
def test_meta_device(name):
    tensors = {key: tensor.detach().to("meta").requires_grad_() for key, tensor in arguments(name).items()}
    y = FUNCTIONS[name](**tensors)
    gradients = torch.autograd.grad(y, list(tensors.values()), torch.empty_like(y))
    assert y.is_meta
    assert [gradient.shape for gradient in gradients] == [tensor.shape for tensor in tensors.values()]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": torch.ones(DIM + 1)}, r"weight must have shape \(6,\), not \(7,\)"),
        ({"bias": torch.ones(1)}, r"bias must have shape \(6,\)"),
        ({"alpha": torch.tensor(0.5)}, r"alpha must have shape \(1,\), not \(\)"),
        ({"x": torch.ones(DIM, dtype=torch.long)}, "floating point"),
        ({"x": torch.tensor(1.0)}, "floating point of shape"),
    ],
)
def test_shapes_that_would_broadcast_by_mistake_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        dyt(**{**arguments("dyt"), **changed})
