"""How benchmark.py measures time: in turns, with what is prepared left out, and the cache overwritten."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from {{cookiecutter.package_name}}.tools.benchmark import timing
from {{cookiecutter.package_name}}.tools.benchmark.timing import Case, Times, take_turns


def test_median_and_quartiles() -> None:
    times = Times(2, [2.0, 4.0, 6.0, 8.0, 100.0])
    assert (times.median, times.iqr) == (3.0, 2.0)
    assert Times(1, [7.0]).iqr == 0.0


def test_turns_are_taken_and_budgets_kept() -> None:
    order: list[str] = []

    def clock(case: Case, times: Times) -> None:
        order.append(str(case.call(["", ""])))
        times.seconds.append(0.5)

    times: dict[str, Times] = {}
    shares: list[float] = []
    cases = {name: Case(name.join, calls=3) for name in "abc"}
    take_turns(cases, clock, 4.0, times, shares.append)
    rounds = ["".join(order[n : n + 3]) for n in range(6, len(order), 3)]
    assert order[:6] == list("aabbcc"), "warm"
    assert ["".join(sorted(one)) for one in rounds] == ["abc"] * 8, "eight of half a second each"
    assert len(set(rounds)) > 1, "whom one comes after changes"
    assert [len(one.seconds) for one in times.values()] == [8, 8, 8]
    assert sum(shares) == pytest.approx(3)
    take_turns(cases, clock, 0.1, times, shares.append)
    assert len(times["a"].seconds) == timing.FEWEST


def test_a_clock_on_a_cpu_leaves_preparation_out() -> None:
    seen: list[Any] = []

    def prepare() -> int:
        seen.append("ready")
        return len(seen)

    times = Times(3)
    timing.wall_clock(Case(seen.append, prepare, 3), times)
    assert seen == ["ready"] * 3 + [1, 2, 3]
    assert len(times.seconds) == 1


def test_a_gpu_waits_no_longer_for_having_waited_and_its_writes_are_not_answered_by_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.alive = -1

        def record(self) -> None:
            self.alive = sum(output() is not None for output in outputs)

        def synchronize(self) -> None: ...

        def elapsed_time(self, end: "Event") -> float:
            return 7.0 + end.alive

    def call(number: int) -> Tensor:
        outputs.append(weakref.ref(y := torch.zeros(number)))
        return y

    outputs: list[weakref.ref[Tensor]] = []
    cycles: list[int] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "_sleep", cycles.append)
    monkeypatch.setattr(timing, "cache_bytes", lambda device: 8)
    times = Times(3, launching=[0.001, 9.0])
    clock = timing.CudaClock(torch.device("cpu"))
    assert clock.waste.nbytes == 2 * 8
    written = clock.waste._version
    clock(Case(call, lambda: 3, 3), times)
    assert clock.waste._version == written, "or the cache is full of what has to be written back"
    assert cycles == [3_000_000], "of the millisecond: a full queue of launches made the 9 s"
    assert times.seconds == [0.01], "all three outputs were there at the end"
    assert len(times.launching) == 3
    assert not any(output() is not None for output in outputs)
