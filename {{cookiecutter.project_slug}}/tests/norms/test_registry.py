"""What every norm promises, the registry, and norms as the `norm_layer` of other libraries' models."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from {{cookiecutter.package_name}} import norms
from {{cookiecutter.package_name}}.norms import DyT, PointwiseNorm, make_norm, register, registry

from .common import DIM, build, randomize_, tokens

CONFIGS = {path.stem: path for path in (Path(__file__).parents[2] / "configs" / "norm").glob("*.yaml")}
PARAMETERS = {  # of the norms that came with the project, as checkpoints have them
    "bn": ["bn.weight", "bn.bias"],
    "derf": ["alpha", "shift", "weight", "bias"],
    "dyt": ["alpha", "weight", "bias"],
    "gn": ["weight", "bias"],
    "ln": ["weight", "bias"],
    "none": [],
    "rmsnorm": ["weight"],
}

each_norm = pytest.mark.parametrize("name", norms.names())


@pytest.fixture
def own_registry(monkeypatch):
    """Classes that a test registers are forgotten after it."""
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))


def scalars_of(norm: nn.Module) -> list[str]:
    return list(norm.scalars) if isinstance(norm, PointwiseNorm) else []


def test_every_norm_has_a_config():
    assert norms.names() == sorted(CONFIGS)


@each_norm
def test_config_agrees_with_the_class(name):
    config: Any = OmegaConf.to_container(OmegaConf.create({"norm": OmegaConf.load(CONFIGS[name])}), resolve=True)
    options = config["norm"]
    assert (options.pop("name"), options.pop("normalizes")) == (name, build(name).normalizes)
    assert registry.options_of(name) == [option for option in options if option != "eps"]
    assert repr(build(name, **options)) == repr(build(name))


@each_norm
@pytest.mark.parametrize(("affine", "bias"), [(True, True), (True, False), (False, True)])
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
    norm(tokens(5, DIM).requires_grad_()).square().sum().backward()
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


@pytest.mark.parametrize("name", [name for name in norms.names() if name != "gn"])  # which is over a sample's tokens
@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 2, 3)])
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
    norm = build(name, device="meta", dtype=torch.bfloat16)
    in_fp32 = [*scalars_of(norm), "lam", "bn.weight", "bn.bias"]
    for key, parameter in norm.named_parameters():
        assert parameter.is_meta
        assert parameter.dtype == (torch.float32 if key in in_fp32 else torch.bfloat16), key
    assert norm(torch.empty(2, 3, DIM, device="meta")).shape == (2, 3, DIM)
    fresh = build(name, dtype=torch.bfloat16)
    norm.to_empty(device="cpu")
    for tensor in norm.state_dict().values():
        tensor.fill_(7)
    for module in norm.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    torch.testing.assert_close(dict(norm.state_dict()), dict(fresh.state_dict()))


OWN_NORM = """
from torch import nn

from .registry import register


@register("scaled")
class Scaled(nn.Module):
    normalizes = False

    def __init__(self, dim, factor=2.0, **common):
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


LAYERS: dict[str, Any] = {
    "class": DyT,
    "partial of a class": partial(DyT, alpha0=0.8),
    "make_norm by keyword": partial(make_norm, name="dyt", alpha0=0.8),
    "make_norm by position": partial(make_norm, "dyt"),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_timm_and_torchvision_take_it_as_norm_layer(layer):
    timm, torchvision = pytest.importorskip("timm"), pytest.importorskip("torchvision")
    model = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, norm_layer=layer)
    assert sum(isinstance(module, DyT) for module in model.modules()) == 3
    assert isinstance(layer(DIM, eps=1e-6, device="meta", dtype=torch.bfloat16), DyT)
    create: Any = partial(timm.create_model, "vit_tiny_patch16_224", norm_layer=layer, depth=1, img_size=32)
    if layer is LAYERS["make_norm by position"]:  # timm drops positional arguments
        with pytest.raises(TypeError, match='name="dyt"'):
            create()
        return
    assert [type(norm) for norm in (create().blocks[0].norm1, create().norm)] == [DyT] * 2
    assert create().norm.alpha.item() == pytest.approx(0.5 if layer is DyT else 0.8)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("dty", {}, ValueError),
        ("dyt", {"alpha": 1.0}, TypeError),
        ("dyt", {"site": "mlp"}, ValueError),
        ("dyt", {"alpha0_by_site": {"mlp": 1.0}}, ValueError),
        ("dyt", {"alpha0": 0.0}, ValueError),
        ("derf", {"alpha0": float("nan")}, ValueError),
        ("dyt", {"kernel": "foo"}, ValueError),
    ],
)
def test_refusals(name, options, error):
    with pytest.raises(error):
        build(name, **options)


def test_what_cannot_be_registered(own_registry):
    class Narrow(nn.Identity):
        normalizes = False

        def __init__(self, dim, device=None, dtype=None):
            super().__init__()

    with pytest.raises(TypeError, match="normalizes"):
        register("silent")(type("Silent", (nn.Identity,), {}))
    with pytest.raises(TypeError, match="affine"):
        register("narrow")(Narrow)
    with pytest.raises(ValueError, match="NoNorm"):
        register("none")(DyT)
    with pytest.raises(ValueError, match="identifier"):
        register("my-norm")
    assert norms.names() == sorted(CONFIGS)
