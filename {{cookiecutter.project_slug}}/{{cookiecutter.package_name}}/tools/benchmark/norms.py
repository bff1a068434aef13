"""Measures every norm by itself: forward, backward and both, on inputs that the cache does not hold.

A forward pass over M tokens of width N with b bytes a number has to move 2 M N b bytes (read x, write y), a backward
pass 3 M N b (read dy and x, write dx). The rate in bytes a second, compared with that of copying x, says how much of
the machine a norm uses and how much could still be won.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ...config.errors import UsageError, first_line
from ...norms import make_norm
from ...norms.functional import CURVES
from ...norms.registry import options_of
from .report import Benchmark, Row, common_rows
from .timing import Case, Clock, CudaClock, Timing, cache_bytes, peak_bytes, saved_bytes, take_turns, wall_clock

TENSORS = {"forward": 2, "backward": 3, "both": 5}  # of x's size, that have to be read or written; a copy's are 2
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ON_GPU = [(8192, 4096), (1024, 4096), (50432, 768), (16384, 1024), (65536, 384), (200000, 768), (2048, 64)]
ON_CPU = [(2048, 768), (1024, 4096)]
MOST_BUFFERS = 64
MOST_CALLS = 16  # in a round: a GPU queues 1,024 launches, and a formula makes tens of them
# Bytes of x that a round goes through; more on a GPU, so that starting it weighs less.
BYTES_PER_ROUND = {"cpu": 2**25, "cuda": 2**30}


def _standardised(x: Tensor, dim: int, eps: float) -> Tensor:
    centred = x - x.mean(dim, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim, keepdim=True) + eps)


def _inverse_rms(x: Tensor) -> Tensor:
    return torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def _in_groups(x: Tensor, groups: int) -> Tensor:
    return _standardised(x.unflatten(-1, (groups, -1)), -1, 1e-5).flatten(-2)


def _pointwise(curve: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda x, alpha, weight, bias: weight * curve(alpha * x) + bias


# As papers write them: a fused norm is worth what it gains over these.
FORMULAS: dict[str, Callable[..., Tensor]] = {
    **{name: _pointwise(curve.formula) for name, curve in CURVES.items() if name not in ("tanh", "erf")},
    "bn": lambda x, weight, bias: weight * _standardised(x, 0, 1e-5) + bias,
    "derf": lambda x, alpha, shift, weight, bias: weight * torch.erf(alpha * x + shift) + bias,
    "dyisru": lambda x, alpha, weight, bias: weight * x.shape[-1] ** 0.5 * CURVES["isru"].formula(alpha * x) + bias,
    "dyt": _pointwise(torch.tanh),
    "gn": lambda x, weight, bias: weight * _in_groups(x, math.gcd(32, x.shape[-1])) + bias,
    "ln": lambda x, weight, bias: weight * _standardised(x, -1, 1e-6) + bias,
    "rmsnorm": lambda x, weight: weight * x * _inverse_rms(x),
    "scalenorm": lambda x, weight: weight * x * _inverse_rms(x),
    "prmsnorm": lambda x, weight: weight * x * _inverse_rms(x[..., : math.ceil(0.0625 * x.shape[-1])]),
    "bhyt": lambda x, lam, weight: weight * torch.tanh(lam / 10 * x * _inverse_rms(x)),
}


def _liger(name: str, **options: Any) -> Callable[[int], nn.Module]:
    return lambda dim: getattr(import_module("liger_kernel.transformers"), name)(dim, **options)


# Other libraries' norms of a width, by the names here.
RIVALS: dict[str, dict[str, Callable[[int], nn.Module]]] = {
    "torch": {"ln": nn.LayerNorm, "rmsnorm": nn.RMSNorm},
    "liger": {
        "dyt": _liger("LigerDyT"),
        "ln": _liger("LigerLayerNorm", bias=True),
        "rmsnorm": _liger("LigerRMSNorm", in_place=False),  # in place it would overwrite dy, which others need
    },
}


def build(
    norm: str, how: str, dim: int, dtype: torch.dtype, device: torch.device
) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """Returns a norm as a function, and its parameters. All are of `dtype`: mixed dtypes would slow some norms down."""
    if how in RIVALS:
        module = RIVALS[how][norm](dim).to(device=device, dtype=dtype)
        return module, list(module.parameters())
    options: dict[str, Any] = {"kernel": "plain"} if how == "plain" else {}
    ours = make_norm(norm, dim, device=device, dtype=dtype, **options)
    call: Callable[[Tensor], Tensor] = ours
    parameters: dict[str, Tensor] = dict(ours.named_parameters())
    if norm in FORMULAS and how in ("formula", "compiled"):
        parameters = {name.rpartition(".")[2]: one.detach().to(dtype) for name, one in parameters.items()}
        call = partial(FORMULAS[norm], **{name: one.requires_grad_() for name, one in parameters.items()})
    return torch.compile(call, dynamic=False) if how.endswith("compiled") else call, [*parameters.values()]


class Buffers:
    """Inputs x and output gradients dy, so many that the cache holds none of them when its turn comes.

    Args:
        shape: tokens, width.
    """

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        size = math.prod(shape) * dtype.itemsize
        number = max(2, min(MOST_BUFFERS, math.ceil(2 * cache_bytes(device) / size)))
        self.calls = min(MOST_CALLS, math.ceil(BYTES_PER_ROUND.get(device.type, 2**30) / size))
        kind: dict[str, Any] = {"dtype": dtype, "device": device, "generator": torch.Generator(device).manual_seed(0)}
        self.x = [torch.randn(shape, **kind).requires_grad_() for _ in range(number)]
        self.pairs = itertools.cycle([(x, torch.randn(shape, **kind)) for x in self.x])

    def copy(self, timing: Timing) -> Case:
        """Returns a case that copies x to new memory, as a norm's output is new."""
        return Case(timing, torch.clone, lambda: next(self.pairs)[0].detach(), self.calls)

    def case(self, timing: Timing, call: Callable[[Tensor], Tensor], parameters: Sequence[Tensor]) -> Case:
        """Returns a case for `timing.step`. Backward gives the gradients of x and of every parameter."""

        def backward(inputs: tuple[Tensor, Tensor, Tensor]) -> object:
            x, dy, y = inputs
            return torch.autograd.grad(y, [x, *parameters], dy)

        def forward(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            return *pair, call(pair[0])

        if timing.step == "forward":
            return Case(timing, call, lambda: next(self.pairs)[0], self.calls)
        if timing.step == "backward":
            return Case(timing, backward, lambda: forward(next(self.pairs)), self.calls)

        def both(pair: tuple[Tensor, Tensor]) -> object:
            done = forward(pair)
            return done, backward(done)

        return Case(timing, both, lambda: next(self.pairs), self.calls)


class NormBenchmark(Benchmark):
    """Every norm in every way, for each shape; see main.py for the options."""

    name = "norms"
    rate = "percent_of_copy"

    def __init__(self, options: Mapping[str, Any], device: torch.device) -> None:
        gpu = device.type == "cuda"
        self.title = options["dtype"] or ("bf16" if gpu else "fp32")
        self.dtype, self.shapes = DTYPES[self.title], options["shapes"] or (ON_GPU if gpu else ON_CPU)
        super().__init__({**options, "dtype": self.title, "shapes": self.shapes}, device)
        self.notes = [
            "% copy: the rate at which a pass moves the bytes that it has to, of the rate at which x is copied",
            "saved: kept for backward, in sizes of x" + ("; peak: beyond x and dy" if gpu else ""),
            *(["*: the host takes longer to launch it than this"] if gpu else []),
        ]
        if "liger" in options["rivals"] and not (gpu and find_spec("liger_kernel")):
            self.skipped["liger"] = "needs an NVIDIA GPU" if find_spec("liger_kernel") else "pip install liger-kernel"
        x = torch.zeros(2, 4)
        self.skipped |= {norm: "it returns its input" for norm in options["norm"] if make_norm(norm, 4)(x) is x}
        self.ways = {norm: self._ways(norm) for norm in options["norm"] if norm not in self.skipped}
        if not self.ways:
            raise UsageError(f"norm={','.join(options['norm'])}: choose one that computes something")
        self.total = (1 + sum(map(len, self.ways.values()))) * len(self.shapes) * len(options["pass"])

    def _ways(self, norm: str) -> list[str]:
        ways = [*(["formula", "compiled"] if norm in FORMULAS else []), "ours", "ours compiled"]
        if self.device.type == "cuda" and "kernel" in options_of(norm):
            ways.append("plain")
        ways = [how for how in ways if self.options["compile"] or not how.endswith("compiled")]
        return ways + [one for one in self.options["rivals"] if one not in self.skipped and norm in RIVALS[one]]

    def measure(self) -> None:
        """Skips what a rival or a compiler cannot do and what memory cannot hold. The own norms must not fail."""
        clock = CudaClock(self.device) if self.device.type == "cuda" else wall_clock
        for tokens, width in self.shapes:
            torch.compiler.reset()  # or the compiler refuses the ninth shape
            try:
                self._measure(tokens, width, clock)
            except torch.OutOfMemoryError as error:
                self.skipped[f"the rest of {tokens}x{width}"] = first_line(error)

    def _measure(self, tokens: int, width: int, clock: Clock) -> None:
        shape, steps = f"{tokens}x{width}", self.options["pass"]
        buffers = Buffers((tokens, width), self.dtype, self.device)
        cases = {step: [buffers.copy(Timing(shape, step, "", "copy"))] for step in steps}
        for norm, how in ((norm, how) for norm, ways in self.ways.items() for how in ways):
            try:
                call, parameters = build(norm, how, width, self.dtype, self.device)
                both = buffers.case(Timing(shape, "both", norm, how), call, parameters)
                both.once()  # compiles it
            except Exception as error:  # of any kind: others wrote it
                if how == "ours":
                    raise
                self.skipped[f"{norm} {how} at {shape}"] = first_line(error)
                continue
            saved = saved_bytes(partial(call, buffers.x[0]), parameters)
            peak = peak_bytes(both.once, self.device, torch.cuda.memory_allocated())
            for step in steps:
                cases[step].append(buffers.case(Timing(shape, step, norm, how, saved, peak), call, parameters))
        for step in steps:
            take_turns(cases[step], clock, self.options["seconds"], self.timings, self.advance)

    def rows(self) -> list[Row]:
        rows = common_rows(self.timings, "ours")
        copies = {(row["group"], row["step"]): row["seconds"] for row in rows if row["how"] == "copy"}
        for row in rows:
            tokens, width = map(int, row["group"].split("x"))
            tensors, copying = TENSORS[row["step"]] if row["norm"] else 2, copies.get((row["group"], row["step"]))
            row |= {"tokens": tokens, "width": width, "x_bytes": tokens * width * self.dtype.itemsize}
            row["bytes_per_second"] = tensors * row["x_bytes"] / row["seconds"]
            row["percent_of_copy"] = 100 * tensors / 2 * copying / row["seconds"] if copying else None
        return rows
