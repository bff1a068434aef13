"""What every norm promises, what is refused, and one's own norm."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from {{cookiecutter.package_name}} import norms
from {{cookiecutter.package_name}}.errors import UsageError
from {{cookiecutter.package_name}}.norms import make_norm, register, registry

DIM = 8
CONFIGS = {path.stem: path for path in (Path(__file__).parents[2] / "configs" / "norm").glob("*.yaml")}
PARAMETERS = {  # of the norms that came with the project, as checkpoints have them
    "bn": ["bn.weight", "bn.bias"],
    "derf": ["alpha", "shift", "weight", "bias"],
    "dyt": ["alpha", "weight", "bias"],
    "ln": ["weight", "bias"],
    "none": [],
    "rmsnorm": ["weight"],
}

each_norm = pytest.mark.parametrize("name", norms.names())


@pytest.fixture
def own_registry(monkeypatch):
    """Classes that a test registers are forgotten after it."""
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))


def build(name: str, **options: Any) -> Any:
    return make_norm(name, DIM, **options)


def tokens(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0)) + 1).to(dtype)


def scalars_of(norm: nn.Module) -> list[str]:
    return list(norm.scalars) if isinstance(norm, norms.PointwiseNorm) else []


def randomize_(norm: Any) -> Any:
    for parameter in norm.parameters():
        parameter.data = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)) + 0.5
    return norm


def test_every_norm_has_a_config():
    assert norms.names() == sorted(CONFIGS)


@each_norm
def test_config_agrees_with_the_class(name):
    options: Any = OmegaConf.to_container(OmegaConf.create({"norm": OmegaConf.load(CONFIGS[name])}), resolve=True)
    options = options["norm"]
    by_default = build(name)
    assert (options.pop("name"), options.pop("normalizes")) == (name, by_default.normalizes)
    assert registry.options_of(name) == list(options)
    assert repr(build(name, **options)) == repr(by_default)


@each_norm
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_affine_and_bias_are_heeded_and_every_parameter_learns(name, affine, bias):
    norm = build(name, affine=affine, bias=bias)
    shapes = {key: tuple(parameter.shape) for key, parameter in norm.named_parameters()}
    assert affine or (DIM,) not in shapes.values()
    assert (affine and bias) or not any(key.endswith("bias") for key in shapes)
    assert () not in shapes.values(), "FSDP2 refuses it: make it (1,)"
    if name in PARAMETERS:
        left_out = [*([] if affine else ["weight"]), *([] if affine and bias else ["bias"])]
        expected = [key for key in PARAMETERS[name] if key.removeprefix("bn.") not in left_out]
        assert shapes == {key: (1,) if key in scalars_of(norm) else (DIM,) for key in expected}
    y = norm(tokens(5, DIM).requires_grad_())
    assert y.shape == (5, DIM)
    y.square().sum().backward()
    assert all(parameter.grad is not None for parameter in norm.parameters())


@each_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pure", [False, True], ids=["fp32 parameters", "cast module"])
@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.filterwarnings("error")  # torch warns where dtypes keep it from its fused kernels
def test_output_has_the_dtype_and_shape_of_the_input(name, dtype, pure, autocast):
    norm = randomize_(build(name))
    x = tokens(2, 3, DIM, dtype=dtype).requires_grad_()
    expected = copy.deepcopy(norm)(x.detach().float())
    if pure:
        norm.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = norm(x)
    assert (y.dtype, y.shape) == (dtype, x.shape)
    torch.testing.assert_close(y.float(), expected, rtol=3 * torch.finfo(dtype).eps, atol=3 * torch.finfo(dtype).eps)
    y.sum().backward()


@each_norm
@pytest.mark.parametrize("shape", [(4, DIM), (2, 3, DIM), (2, 2, 3, DIM)])
def test_each_vector_of_the_last_dimension_is_a_token(name, shape):
    norm = randomize_(build(name))
    x = tokens(*shape, DIM)
    torch.testing.assert_close(norm(x), norm(x.reshape(-1, DIM)).view(x.shape))


@each_norm
def test_compiles_into_one_graph(name):
    norm, x = build(name), tokens(2, 3, DIM)
    compiled = torch.compile(copy.deepcopy(norm), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), norm(x))


@each_norm
def test_meta_device_then_materialised(name):
    norm = build(name, device="meta")
    assert norm(torch.empty(2, 3, DIM, device="meta")).shape == (2, 3, DIM)
    fresh = build(name)
    norm.to_empty(device="cpu")
    for tensor in norm.state_dict().values():
        tensor.fill_(7)
    for module in norm.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert norm.state_dict().keys() == fresh.state_dict().keys()
    torch.testing.assert_close(dict(norm.state_dict()), dict(fresh.state_dict()))


@each_norm
def test_device_and_dtype_are_taken_at_construction(name):
    norm = build(name, device="meta", dtype=torch.bfloat16)
    in_fp32 = [*scalars_of(norm), "bn.weight", "bn.bias"]
    for key, parameter in norm.named_parameters():
        assert parameter.is_meta
        assert parameter.dtype == (torch.float32 if key in in_fp32 else torch.bfloat16), key


def test_none_is_the_identity():
    x = tokens(2, 3, DIM)
    assert build("none")(x) is x


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dty", {}, "there is no such norm (did you mean dyt?); choose from "),
        ("dyt", {"alpha": 1.0}, "there is no option alpha (did you mean alpha0?); it has alpha0, alpha0_by_site"),
        ("none", {"eps": 1e-6}, "there is no option eps; it has none"),
        ("dyt", {"site": "mlp"}, "site=mlp: expected one of attn, ffn, final"),
        ("ln", {"site": "mlp"}, "site=mlp: expected one of attn, ffn, final"),
        ("dyt", {"alpha0": 0.0}, "norm.alpha0=0.0: expected a number above 0"),
        ("derf", {"alpha0": -1}, "norm.alpha0=-1: expected a number above 0"),
        ("dyt", {"alpha0": float("nan")}, "norm.alpha0=nan: expected a number"),
        ("dyt", {"alpha0": "abc"}, "norm.alpha0=abc: expected a number"),
        ("dyt", {"alpha0": True}, "norm.alpha0=True: expected a number"),
        ("dyt", {"alpha0": None}, "norm.alpha0=None: expected a number"),
        ("dyt", {"alpha0_by_site": {"mlp": 1.0}}, "norm.alpha0_by_site=mlp: expected one of attn, ffn, final"),
        ("dyt", {"alpha0_by_site": {"ffn": 0}}, "norm.alpha0_by_site.ffn=0: expected a number above 0"),
        ("dyt", {"alpha0_by_site": 0.5}, "norm.alpha0_by_site=0.5: expected a number for each of attn, ffn, final"),
        ("dyt", {"weight0": 0}, "norm.weight0=0: expected a number above 0"),
        ("derf", {"shift0": "x"}, "norm.shift0=x: expected a number"),
        ("ln", {"eps": 0}, "norm.eps=0: expected a number above 0"),
        ("rmsnorm", {"eps": "small"}, "norm.eps=small: expected a number"),
        ("bn", {"momentum": 1.5}, "norm.momentum=1.5: expected a number above 0, at most 1"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(UsageError) as caught:
        build(name, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


OWN_NORM = """
from torch import nn

from ..registry import register


@register("scaled")
class Scaled(nn.Module):
    normalizes = False

    def __init__(self, dim, site=None, affine=True, bias=True, device=None, dtype=None, factor=2.0):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x
"""


def test_a_file_in_the_folder_is_a_norm(own_registry, monkeypatch, tmp_path):
    (tmp_path / "scaled.py").write_text(OWN_NORM)
    monkeypatch.setattr(norms, "__path__", [*norms.__path__, str(tmp_path)])
    norms._import_all()
    x = tokens(2, DIM)
    assert torch.equal(build("scaled", factor=3.0)(x), 3 * x)
    assert norms.is_norm(build("scaled"))


def test_names_that_cannot_be_registered(own_registry):
    with pytest.raises(UsageError, match="NoNorm has this name"):
        register("none")(norms.DyT)
    assert register("dyt")(norms.DyT) is norms.DyT
    wrong: list[Any] = ["", "my-norm", "1st", "a.b", norms.DyT]
    for name in wrong:
        with pytest.raises(UsageError, match="identifier"):
            register(name)


def test_classes_that_cannot_be_registered(own_registry):
    class Silent(norms.DyT):
        normalizes = None  # type: ignore[assignment]

    class Narrow(nn.Identity):
        normalizes = False

        def __init__(self, dim, device=None, dtype=None):
            super().__init__()

    with pytest.raises(UsageError, match=r"Silent must say normalizes = True or normalizes = False"):
        register("silent")(Silent)
    with pytest.raises(UsageError, match=r"Narrow must take .* by keyword; it lacks site, affine, bias$"):
        register("narrow")(Narrow)
    assert norms.names() == sorted(CONFIGS)
