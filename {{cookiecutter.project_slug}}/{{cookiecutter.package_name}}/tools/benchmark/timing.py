"""Time of calls, measured so that neither the cache nor the drift of the machine flatters any of them.

Not by `torch.utils.benchmark`, whose Timer repeats one statement on one input, nor by Triton's do_bench, which knows
GPUs alone: here inputs are rotated, a forward pass stays outside the clock of its backward pass, what is compared takes
turns, and a CPU is measured in the same way.
"""

import os
import random
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter
from typing import Any, TypeVar

import torch

FEWEST, MOST = 5, 200  # repetitions
CPU_CACHE = 32 * 2**20  # bytes, where the system does not say
Key = TypeVar("Key")


@dataclass(frozen=True)
class Case:
    """What is measured: `call` on each of `calls` inputs, which `prepare` makes before the clock starts."""

    call: Callable[[Any], object]
    prepare: Callable[[], Any] = lambda: None
    calls: int = 1


@dataclass
class Times:
    """Seconds of the repetitions of a case, in each of them all its calls together.

    Args:
        launching: until the host had issued the calls, where that is told apart.
    """

    calls: int = 1
    seconds: list[float] = field(default_factory=list)
    launching: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds of one call."""
        return median(self.seconds) / self.calls

    @property
    def iqr(self) -> float:
        """From the first quartile to the third, of one call."""
        if len(self.seconds) < 2:
            return 0.0
        first, _, third = quantiles(self.seconds, n=4, method="inclusive")
        return (third - first) / self.calls

    @property
    def median_launching(self) -> float | None:
        """Seconds that one call takes the host. Of a GPU that does its part faster, this is what binds."""
        return median(self.launching) / self.calls if self.launching else None


Clock = Callable[[Case, Times], None]


def wall_clock(case: Case, times: Times) -> None:
    """As long as a user waits, all launches included: for a CPU, and for whole steps."""
    inputs = [case.prepare() for _ in range(case.calls)]
    _synchronize()
    start = perf_counter()
    for one in inputs:
        case.call(one)
    _synchronize()
    times.seconds.append(perf_counter() - start)


class CudaClock:
    """By CUDA's events, as Triton's do_bench: how long the device is busy, however slowly the host launches.

    The cache is filled with something else before, by reading: what is written would have to leave it during the calls.
    The device waits until the host is well ahead of it. What the calls return is kept until then: memory that is freed
    and used again at once would be written to the cache alone.
    """

    def __init__(self, device: torch.device) -> None:
        self.waste = torch.zeros(cache_bytes(device) // 2, device=device)  # twice the cache in fp32
        self.start, self.end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def __call__(self, case: Case, times: Times) -> None:
        inputs = [case.prepare() for _ in range(case.calls)]
        torch.cuda.synchronize()
        self.waste.sum()
        # Of the shortest time: a longer one may hold a wait for this very sleep, and each would make the next longer.
        torch.cuda._sleep(int(3e9 * min(times.launching, default=0.0)))  # cycles: at most 2e9 are a second
        self.start.record()
        start = perf_counter()
        outputs = [case.call(one) for one in inputs]
        launching = perf_counter() - start
        self.end.record()
        self.end.synchronize()
        times.seconds.append(self.start.elapsed_time(self.end) / 1000)
        times.launching.append(launching)
        del outputs


def take_turns(
    cases: Mapping[Key, Case],
    clock: Clock,
    seconds: float,
    times: MutableMapping[Key, Times],
    advance: Callable[[float], object],
) -> None:
    """Measures all cases in turns, A B C, B A C, so that whatever else the machine does hits all alike.

    Every round has an order of its own: a case finds the caches and the heap as the one before it left them, and that
    should not always be the same one.

    Args:
        cases: that have run before, and so are compiled.
        seconds: for one of them, on average; but each is repeated FEWEST times at least.
        times: filled on the way, for whoever stops it.
        advance: told after every turn what share of a case is done.
    """
    warm = {key: Times(case.calls) for key, case in cases.items()}
    for key, case in cases.items():
        clock(case, warm[key])
        clock(case, warm[key])
    once = sum(one.seconds[-1] for one in warm.values())
    rounds = max(FEWEST, min(MOST, round(seconds * len(cases) / max(once, 1e-9))))
    for key, one in warm.items():
        times[key] = Times(one.calls, [], one.launching[-1:])
    order, generator = list(cases.items()), random.Random(0)
    for _ in range(rounds):
        generator.shuffle(order)
        for key, case in order:
            clock(case, times[key])
            advance(1 / rounds)


def cache_bytes(device: torch.device) -> int:
    """Of the last-level cache."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    known = os.sysconf_names if hasattr(os, "sysconf_names") else {}  # not on Windows
    return max(os.sysconf("SC_LEVEL3_CACHE_SIZE"), 0) or CPU_CACHE if "SC_LEVEL3_CACHE_SIZE" in known else CPU_CACHE


def _synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
