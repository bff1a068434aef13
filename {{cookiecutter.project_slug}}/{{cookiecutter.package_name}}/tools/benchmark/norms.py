"""Every norm by itself: forward, backward and both, on tensors that the cache does not hold.

A forward pass over M tokens of width N and b bytes a number has to move 2 M N b bytes (read x, write y), a backward
pass 3 M N b (read dy and x, write dx). That over the time is a rate, and its share of what copying a tensor reaches in
the same run says how much of the machine is made use of, and how much could still be won.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...errors import UsageError
from ...norms import make_norm
from ...norms.registry import options_of
from .memory import peak_bytes, saved_bytes
from .report import Results
from .rivals import RIVALS
from .timing import Case, Clock, cache_bytes, take_turns

MOST_BUFFERS = 64
MOST_CALLS = 16  # in a repetition: a GPU queues 1,024 launches, and a formula makes tens of them
# Bytes of x that a repetition goes through; more on a GPU, so that starting it weighs less.
AT_ONCE = {"cpu": 2**25, "cuda": 2**30}
KERNELS = {"plain": "plain", "triton compiled": "triton"}  # ways that ask for one, where ours takes what suits
COPIED = 2  # tensors of x's size, that copying x reads and writes
TENSORS = {"forward": 2, "backward": 3, "both": 5}  # that a norm has to read or write


def dyt(x: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return weight * torch.tanh(alpha * x) + bias


def derf(x: Tensor, alpha: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return weight * torch.erf(alpha * x + shift) + bias


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return weight * centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-6) + bias


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return weight * centred * torch.rsqrt(centred.square().mean(0) + 1e-5) + bias


# As they are written down and copied from one project to the next: what a fused norm is worth shows beside these.
FORMULAS: dict[str, Callable[..., Tensor]] = {
    "bn": batch_norm,
    "derf": derf,
    "dyt": dyt,
    "ln": layer_norm,
    "rmsnorm": rms_norm,
}


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Args:
        shapes: (tokens, width) each.
        steps: of forward, backward and both.
        compiles: whether torch.compile takes part.
        seconds: of measuring, for each number.
    """

    norms: Sequence[str]
    shapes: Sequence[tuple[int, int]]
    steps: Sequence[str]
    dtype: torch.dtype
    device: torch.device
    rivals: Sequence[str] = ()
    compiles: bool = True
    seconds: float = 0.2

    def ways(self, norm: str) -> list[str]:
        """In which `norm` can be computed."""
        own = [*(["formula", "compiled"] if norm in FORMULAS else []), "ours", "ours compiled"]
        if self.device.type == "cuda" and "kernel" in options_of(norm):
            own += KERNELS
        own = [how for how in own if self.compiles or not how.endswith("compiled")]
        return own + [rival for rival in self.rivals if norm in RIVALS[rival].norms]

    def __len__(self) -> int:
        """How many numbers there will be, one of each table for the copy."""
        return (1 + sum(len(self.ways(norm)) for norm in self.norms)) * len(self.shapes) * len(self.steps)


@dataclass(frozen=True)
class Place:
    """Where a number stands. Copying a tensor has no norm."""

    shape: tuple[int, int]
    step: str
    norm: str
    how: str


@dataclass(frozen=True)
class Entry:
    """One way of computing a norm."""

    norm: str
    how: str
    call: Callable[[Tensor], Tensor]
    parameters: Sequence[Tensor]


def entry(norm: str, how: str, dim: int, dtype: torch.dtype, device: torch.device) -> Entry:
    """All of it in `dtype`: mixed dtypes would slow some norms down."""
    if how in RIVALS:
        module = RIVALS[how].norms[norm](dim).to(device=device, dtype=dtype)
        return Entry(norm, how, module, list(module.parameters()))
    options: dict[str, Any] = {"kernel": KERNELS[how]} if how in KERNELS else {}
    ours = make_norm(norm, dim, device=device, dtype=dtype, **options)
    call: Callable[[Tensor], Tensor] = ours
    parameters: dict[str, Tensor] = dict(ours.named_parameters())
    if norm in FORMULAS and how in ("formula", "compiled"):
        parameters = {name.rpartition(".")[2]: one.detach().to(dtype) for name, one in parameters.items()}
        call = partial(FORMULAS[norm], **{name: one.requires_grad_() for name, one in parameters.items()})
    call = torch.compile(call, dynamic=False) if how.endswith("compiled") else call
    return Entry(norm, how, call, [*parameters.values()])


class Buffers:
    """Inputs and gradients of the output, so many that the cache holds none of them when it is its turn.

    Calls take them one after the other, whoever calls.

    Args:
        shape: tokens, width.
    """

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        size = math.prod(shape) * dtype.itemsize
        self.number = max(2, min(MOST_BUFFERS, math.ceil(2 * cache_bytes(device) / size)))
        self.calls = min(MOST_CALLS, math.ceil(AT_ONCE.get(device.type, AT_ONCE["cuda"]) / size))
        self.turn = itertools.cycle(range(self.number))
        kind: dict[str, Any] = {"dtype": dtype, "device": device, "generator": torch.Generator(device).manual_seed(0)}
        self.x = [torch.randn(shape, **kind).requires_grad_() for _ in range(self.number)]
        self.dy = [torch.randn(shape, **kind) for _ in range(self.number)]

    def copy(self) -> Case:
        """To memory that is allocated as a norm's output is, so that the cache helps both alike."""
        return Case(torch.clone, lambda: self.x[next(self.turn)].detach(), self.calls)

    def case(self, entry: Entry, step: str) -> Case:
        def backward(x: Tensor, y: Tensor, dy: Tensor) -> object:
            return torch.autograd.grad(y, [x, *entry.parameters], dy)

        def inputs() -> tuple[Tensor, Tensor]:
            number = next(self.turn)
            return self.x[number], self.dy[number]

        def ready() -> tuple[Tensor, Tensor, Tensor]:
            x, dy = inputs()
            return x, entry.call(x), dy

        def both(x: Tensor, dy: Tensor) -> object:
            y = entry.call(x)
            return y, backward(x, y, dy)

        if step == "forward":
            return Case(entry.call, lambda: inputs()[0], self.calls)
        if step == "backward":
            return Case(lambda one: backward(*one), ready, self.calls)
        return Case(lambda one: both(*one), inputs, self.calls)


def measure(plan: Plan, clock: Clock, results: Results[Place], advance: Callable[[float], object]) -> None:
    """Fills `results`, shape by shape; memory is that of step "both", its peak beyond x and dy.

    What a rival or a compiler cannot do, or memory cannot hold, is skipped; our own must not fail.

    Args:
        advance: told how many numbers are done.
    """
    for shape in plan.shapes:
        torch.compiler.reset()  # or the compiler refuses the ninth shape
        try:
            _measure(shape, plan, clock, results, advance)
        except torch.OutOfMemoryError as error:
            results.skip(f"the rest of {shape[0]}x{shape[1]}", error)


def _measure(
    shape: tuple[int, int], plan: Plan, clock: Clock, results: Results[Place], advance: Callable[[float], object]
) -> None:
    buffers = Buffers(shape, plan.dtype, plan.device)
    able = []
    for norm in plan.norms:
        for how in plan.ways(norm):
            if (one := _working(norm, how, shape, buffers, results)) is not None:
                able.append(one)
            else:
                advance(len(plan.steps))
    for step in plan.steps:
        cases = {Place(shape, step, one.norm, one.how): buffers.case(one, step) for one in able}
        cases[Place(shape, step, "", "copy")] = buffers.copy()
        take_turns(cases, clock, plan.seconds, results.times, advance)


def _working(norm: str, how: str, shape: tuple[int, int], buffers: Buffers, results: Results[Place]) -> Entry | None:
    """This way of computing `norm`, having run once, which compiles it and tells what memory it takes."""
    x = buffers.x[0]
    try:
        one = entry(norm, how, shape[1], x.dtype, x.device)
        both = buffers.case(one, "both")
        both.call(both.prepare())
    except Exception as error:  # of any kind: it is not our code
        if how == "ours":
            raise
        results.skip(f"{norm} {how} at {shape[0]}x{shape[1]}", error)
        return None
    place = Place(shape, "both", norm, how)
    results.saved[place] = saved_bytes(lambda: one.call(x), one.parameters)
    results.peak[place] = peak_bytes(lambda: both.call(both.prepare()), x.device)
    return one


def worth_measuring(norms: Sequence[str], skipped: dict[str, str]) -> list[str]:
    """`norms` without those that compute nothing.

    Raises:
        UsageError: none is left.
    """
    x = torch.zeros(2, 4)
    left = [norm for norm in norms if make_norm(norm, 4)(x) is not x]
    if not left:
        raise UsageError(f"norm={','.join(norms)}: it gives back its input; choose one that computes something")
    skipped |= {norm: "it gives back its input" for norm in norms if norm not in left}
    return left
