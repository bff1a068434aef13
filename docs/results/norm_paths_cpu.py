"""Times the ways to compute DyT and Derf on the CPU: python docs/results/norm_paths_cpu.py PROJECT [OUT.json].

PROJECT is a generated project; "project" is its own norms, the other ways are written here. One thread, all ways of a
shape in turn (interleaved), CPU time of the thread, medians.
"""

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from time import thread_time

import torch
import torch.nn.functional as F
from torch import Tensor

PROJECT = Path(sys.argv[1]).resolve()
PACKAGE = next(path.parent.name for path in PROJECT.glob("*/train.py") if (path.parent / "norms").is_dir())
sys.path.insert(0, str(PROJECT))
SHAPES = {"ViT 64x16x96": (64, 16, 96), "DiT 128x16x96": (128, 16, 96), "LLaMA 16x128x128": (16, 128, 128)}
MODELS = {"ViT": [], "LLaMA": ["task=llm"]}


def formula(x: Tensor, alpha: Tensor, shift: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = torch.tanh(alpha * x) if shift is None else torch.erf(alpha * x + shift)
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(x.dtype)


class Function(torch.autograd.Function):
    """Saves x alone and computes tanh or erf again in backward."""

    @staticmethod
    def forward(ctx, x, alpha, shift, weight, bias):
        ctx.save_for_backward(x, alpha, shift, weight, bias)
        u = x * alpha
        y = u.tanh_() if shift is None else u.add_(shift).erf_()
        y = y if weight is None else y.mul_(weight)
        return (y if bias is None else y.add_(bias)).to(x.dtype)

    @staticmethod
    def backward(ctx, dy):
        x, alpha, shift, weight, bias = ctx.saved_tensors
        u, dy = x * alpha, dy.float()
        if shift is None:
            f = u.tanh_()
            du = torch.ops.aten.tanh_backward(dy, f)
        else:
            f = u.add_(shift).erf()
            du = u.square_().neg_().exp_().mul_(2 / math.sqrt(math.pi)).mul_(dy)
        return rest_of_backward(x, alpha, shift, weight, bias, dy, f, du)


class Sigmoid(Function):
    """The same with tanh from expm1 in forward and from sigmoid in backward."""

    @staticmethod
    def forward(ctx, x, alpha, shift, weight, bias):
        if shift is not None:
            return Function.forward(ctx, x, alpha, shift, weight, bias)
        ctx.save_for_backward(x, alpha, shift, weight, bias)
        e = (x * alpha).mul_(2).clamp_(max=40).expm1_()
        y = e.div_(e + 2)
        y = y if weight is None else y.mul_(weight)
        return (y if bias is None else y.add_(bias)).to(x.dtype)

    @staticmethod
    def backward(ctx, dy):
        x, alpha, shift, weight, bias = ctx.saved_tensors
        if shift is not None:
            return Function.backward(ctx, dy)
        s, dy = (x * alpha).mul_(2).sigmoid_(), dy.float()
        f, du = 2 * s - 1, torch.ops.aten.sigmoid_backward(dy, s) * 4
        return rest_of_backward(x, alpha, shift, weight, bias, dy, f, du)


def rest_of_backward(x, alpha, shift, weight, bias, dy, f, du):
    dweight = None if weight is None else (dy * f).sum_to_size(weight.shape)
    dbias = None if bias is None else dy.sum_to_size(bias.shape)
    du = du if weight is None else du * weight
    dshift = None if shift is None else du.sum().view(1)
    return (du * alpha).to(x.dtype), (du * x).sum().view(1), dshift, dweight, dbias


WAYS = {"formula": formula, "function": Function.apply, "with sigmoid": Sigmoid.apply}


def turns(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds, medians of `rounds` in turn."""
    for case in cases.values():
        for _ in range(5):
            case()
    times = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            start = thread_time()
            case()
            times[name].append(1e3 * (thread_time() - start))
    return {name: round(median(one), 3) for name, one in times.items()}


def forward_and_backward(
    x: Tensor, dy: Tensor, call: Callable[..., Tensor], *tensors: Tensor | None
) -> Callable[[], object]:
    learned = [x, *(one for one in tensors if one is not None)]
    return lambda: torch.autograd.grad(call(x, *tensors), learned, dy)


def operators(rounds: int = 200) -> dict[str, dict[str, float]]:
    norms = import_module(f"{PACKAGE}.norms")
    ways = WAYS | {f"{way} compiled": torch.compile(call, dynamic=False) for way, call in WAYS.items()}
    torch._dynamo.config.recompile_limit = 100
    found = {}
    for place, shape in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            x = (2 * torch.randn(shape)).to(dtype).requires_grad_()
            dy = torch.randn(shape).to(dtype)
            alpha, shift = torch.tensor([0.5]).requires_grad_(), torch.zeros(1).requires_grad_()
            weight, bias = torch.ones(shape[-1]).requires_grad_(), torch.zeros(shape[-1]).requires_grad_()
            vectors = [one.detach().to(dtype).requires_grad_() for one in (weight, bias)]
            both = partial(forward_and_backward, x, dy)
            cases = {f"{way}, dyt": both(call, alpha, None, weight, bias) for way, call in ways.items()}
            cases |= {f"{way}, derf": both(call, alpha, shift, weight, bias) for way, call in ways.items()}
            cases["project, dyt"] = both(norms.dyt, alpha, weight, bias)
            cases["project, derf"] = both(norms.derf, alpha, shift, weight, bias)
            cases["LayerNorm"] = both(lambda x, w, b: F.layer_norm(x, w.shape, w, b), *vectors)
            cases["RMSNorm"] = both(lambda x, w: F.rms_norm(x, w.shape, w), vectors[0])
            found[f"{place} {str(dtype).removeprefix('torch.')}"] = turns(cases, rounds)
    return found


def models(rounds: int = 40) -> dict[str, dict[str, float]]:
    norms, config = import_module(f"{PACKAGE}.norms"), import_module(f"{PACKAGE}.config")
    benchmark = import_module(f"{PACKAGE}.tools.benchmark.models")
    calls = {"project": None, **WAYS}
    found = {}
    for model, argv in MODELS.items():
        for how in ("eager", "compiled"):
            cases = {}
            for norm in ("dyt", "derf", "ln", "rmsnorm"):
                for way, call in calls.items() if norm in ("dyt", "derf") else [("torch", None)]:
                    cfg = config.compose([*argv, f"norm={norm}", "trainer=cpu"])
                    runner = benchmark.Runner(cfg, torch.device("cpu"))
                    for module in runner.module.modules():
                        if call is not None and isinstance(module, norms.PointwiseNorm):
                            module.__class__ = subclass(type(module), call)
                    if how == "compiled":
                        torch._dynamo.config.recompile_limit += 100
                        torch._dynamo.config.accumulated_recompile_limit += 100
                        runner.compile()
                    case = runner.case(benchmark.Timing("", "training", norm, how))
                    cases[f"{norm}, {way}"] = lambda case=case: case.call(case.prepare())
            found[f"{model} {how}"] = turns(cases, rounds)
    return found


def subclass(cls: type, call: Callable[..., Tensor]) -> type:
    def forward(self, x: Tensor) -> Tensor:
        return call(x, self.alpha, getattr(self, "shift", None), self.weight, self.bias)

    return type(cls.__name__, (cls,), {"forward": forward})


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = {"operators": operators, "models": models}
    results = {name: parts[name]() for name in (sys.argv[3:] or parts)}
    for name, table in results.items():
        for place, times in table.items():
            print(f"{name}: {place}")
            for case, time in times.items():
                print(f"    {case:28} {time:9.3f} ms")
    if len(sys.argv) > 2:
        about = {"unit": "ms of CPU time, median", "machine": "two cores of an AMD EPYC", "torch": torch.__version__}
        about["python"] = sys.version.split()[0]
        Path(sys.argv[2]).write_text(json.dumps(about | results, indent=1) + "\n", encoding="utf-8")
