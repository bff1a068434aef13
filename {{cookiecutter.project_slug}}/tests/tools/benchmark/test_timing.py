"""Timing: cases take turns, preparation is left out, the GPU's cache is overwritten."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from {{cookiecutter.package_name}}.tools.benchmark import timing
from {{cookiecutter.package_name}}.tools.benchmark.timing import (
    Case,
    Timing,
    peak_bytes,
    saved_bytes,
    take_turns,
)


def named(name: str) -> Timing:
    return Timing("", "forward", name, "ours")


def test_cases_take_turns_within_the_budget() -> None:
    order: list[str] = []

    def clock(case: Case) -> None:
        order.append(case.timing.norm)
        case.timing.seconds.append(0.25)

    timings: list[Timing] = []
    shares: list[float] = []
    take_turns([Case(named(name), print, calls=2) for name in "abc"], clock, 4.0, timings, shares.append)
    rounds = ["".join(order[n : n + 3]) for n in range(6, len(order), 3)]
    assert order[:6] == list("aabbcc"), "warm-up"
    assert ["".join(sorted(one)) for one in rounds] == ["abc"] * 8, "eight of half a second each"
    assert len(set(rounds)) > 1, "the order changes"
    assert [len(one.seconds) for one in timings] == [8, 8, 8]
    assert sum(shares) == pytest.approx(3)
    take_turns([Case(named("a"), print)], clock, 0.1, timings, shares.append)
    assert len(timings[-1].seconds) == timing.FEWEST


def test_preparation_is_not_measured() -> None:
    seen: list[Any] = []

    def prepare() -> int:
        seen.append("ready")
        return len(seen)

    one = named("dyt")
    timing.wall_clock(Case(one, seen.append, prepare, 3))
    assert seen == ["ready"] * 3 + [1, 2, 3]
    assert len(one.seconds) == 1


def test_cuda_events_with_outputs_alive_and_a_bounded_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.alive = -1

        def record(self) -> None:
            self.alive = sum(output() is not None for output in outputs)

        def synchronize(self) -> None: ...

        def elapsed_time(self, end: "Event") -> float:
            return 7.0 + end.alive + 2

    def call(number: int) -> Tensor:
        outputs.append(weakref.ref(y := torch.zeros(number)))
        return y

    outputs: list[weakref.ref[Tensor]] = []
    cycles: list[int] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "_sleep", cycles.append)
    monkeypatch.setattr(timing, "cache_bytes", lambda device: 8)
    one = named("dyt")
    one.launching = [0.001, 9.0]
    clock = timing.CudaClock(torch.device("cpu"))
    assert clock.filler.nbytes == 2 * 8
    written = clock.filler._version
    clock(Case(one, call, lambda: 3, 3))
    assert clock.filler._version == written, "written data would have to leave the cache"
    assert cycles == [9_000_000], "three calls of the shortest launch; a full queue made the 9 s"
    assert one.seconds == [pytest.approx(0.004)], "12 ms for three calls: all outputs were alive at the end"
    assert len(one.launching) == 3
    assert not any(output() is not None for output in outputs)


def test_bytes_saved_for_backward() -> None:
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(8, requires_grad=True)
    size = 4 * 8 * 4
    assert saved_bytes(lambda: torch.tanh(x), []) == size, "the output"
    assert saved_bytes(lambda: weight * torch.tanh(x), [weight]) == size, "once for both operations"
    assert saved_bytes(lambda: torch.tanh(torch.tanh(x)), []) == 2 * size
    layer = nn.LayerNorm(8)
    assert saved_bytes(lambda: layer(x), layer.parameters()) == size + 2 * 4 * 4, "x, means and deviations"
    assert peak_bytes(lambda: None, torch.device("cpu"), 0) is None
