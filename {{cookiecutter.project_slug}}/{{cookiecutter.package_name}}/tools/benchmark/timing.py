"""Measures time and memory of calls.

`torch.utils.benchmark` repeats one statement on one input. Here inputs rotate, so that the cache does not hold them,
and all cases take turns, so that what else the machine does slows all of them alike.
"""

import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

FEWEST, MOST = 5, 200  # rounds
CPU_CACHE = 32 * 2**20  # bytes, where the system does not say


@dataclass
class Timing:
    """The measurements of one way to compute a norm or a model."""

    group: str  # the table it belongs to: a shape, or nothing
    step: str  # such as "forward"
    norm: str  # empty for a copy
    how: str  # such as "compiled"
    saved: int | None = None  # bytes kept for backward, without the parameters
    peak: int | None = None  # bytes held at most; None where PyTorch does not count them
    seconds: list[float] = field(default_factory=list)  # of a call, by round
    launching: list[float] = field(default_factory=list)  # until the host had issued a call, where a GPU is timed


@dataclass(frozen=True)
class Case:
    """A function to measure: `call` on each of `calls` inputs, which `prepare` makes outside the measured time."""

    timing: Timing
    call: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None
    calls: int = 1

    def once(self) -> object:
        return self.call(self.prepare())


Clock = Callable[[Case], None]


def wall_clock(case: Case) -> None:
    """Measures the time that a user waits, launches included: for a CPU, and for whole training steps."""
    inputs = [case.prepare() for _ in range(case.calls)]
    synchronize = torch.accelerator.synchronize if torch.accelerator.is_available() else lambda: None
    synchronize()
    start = perf_counter()
    for one in inputs:
        case.call(one)
    synchronize()
    case.timing.seconds.append((perf_counter() - start) / case.calls)


class CudaClock:
    """Measures the device's time by CUDA events, however slowly the host launches the kernels.

    First it fills the cache by reading something else; written data would have to leave the cache during the calls.
    Outputs stay alive until the end: memory that is freed and used again at once would be written to the cache alone.
    """

    def __init__(self, device: torch.device) -> None:
        self.filler = torch.zeros(cache_bytes(device) // 2, device=device)  # twice the cache in fp32
        self.start, self.end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def __call__(self, case: Case) -> None:
        inputs = [case.prepare() for _ in range(case.calls)]
        torch.cuda.synchronize()
        self.filler.sum()
        # The device sleeps until the host is ahead. The shortest launch counts: a longer one may include such a sleep.
        torch.cuda._sleep(int(3e9 * case.calls * min(case.timing.launching, default=0.0)))  # cycles, 2e9 a second
        self.start.record()
        start = perf_counter()
        outputs = [case.call(one) for one in inputs]
        launching = perf_counter() - start
        self.end.record()
        self.end.synchronize()
        case.timing.seconds.append(self.start.elapsed_time(self.end) / 1000 / case.calls)
        case.timing.launching.append(launching / case.calls)
        del outputs


def take_turns(
    cases: Sequence[Case], clock: Clock, seconds: float, timings: list[Timing], advance: Callable[[float], object]
) -> None:
    """Measures all cases in rounds, in an order that changes, because a case finds the cache as the last one left it.

    Args:
        cases: have run before, and so are compiled.
        seconds: per case on average; each is measured FEWEST times at least.
        timings: gets those of the cases, which fill on the way.
        advance: called with the share of a case that is done.
    """
    for case in cases:
        clock(case)
        clock(case)
    once = sum(case.timing.seconds[-1] * case.calls for case in cases)
    rounds = max(FEWEST, min(MOST, round(seconds * len(cases) / max(once, 1e-9))))
    for case in cases:
        case.timing.seconds.clear()
        del case.timing.launching[:-1]
        timings.append(case.timing)
    generator = random.Random(0)
    for _ in range(rounds):
        for case in generator.sample(cases, len(cases)):
            clock(case)
            advance(1 / rounds)


def cache_bytes(device: torch.device) -> int:
    """Returns the size of the last-level cache."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    known = "SC_LEVEL3_CACHE_SIZE" in getattr(os, "sysconf_names", {})  # on Linux
    return (os.sysconf("SC_LEVEL3_CACHE_SIZE") if known else 0) or CPU_CACHE


def saved_bytes(forward: Callable[[], object], parameters: Iterable[Tensor]) -> int:
    """Returns the bytes that autograd keeps until backward, the input included, without the parameters.

    Counts storages, so that a tensor which two operations save counts once.
    """
    own = {one.untyped_storage().data_ptr() for one in parameters}
    kept: dict[int, Tensor] = {}  # alive until all is counted, or an address would be used twice
    with saved_tensors_hooks(lambda x: kept.setdefault(x.untyped_storage().data_ptr(), x.detach()), lambda x: x):
        forward()
    return sum(one.untyped_storage().nbytes() for address, one in kept.items() if address not in own)


def peak_bytes(step: Callable[[], object], device: torch.device, before: int) -> int | None:
    """Returns the bytes held at most during `step`, beyond `before`; None without CUDA."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() - before
