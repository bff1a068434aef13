"""Rates by a clock that the tests turn, and the FLOPs behind them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from {{cookiecutter.package_name}}.callbacks import throughput
from {{cookiecutter.package_name}}.callbacks.flops import peak_rate, training_flops
from {{cookiecutter.package_name}}.callbacks.throughput import Throughput
from {{cookiecutter.package_name}}.config import compose, plain
from {{cookiecutter.package_name}}.models.base import BaseModule


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Log:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, metrics))


class LinearModule(BaseModule):
    def model_inputs(self, batch: Tensor) -> tuple[Tensor]:
        return (batch,)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "perf_counter", clock)
    return clock


def trainer(validates: bool = True) -> Any:
    """What the callback asks of a trainer, with two batches a step on two devices, every two steps a report."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(
        num_val_batches=[3] if validates else [],
        val_check_interval=4,
        max_steps=100,
        fit_loop=SimpleNamespace(_should_accumulate=lambda: False),
        accumulate_grad_batches=2,
        world_size=2,
        precision="32-true",
        strategy=strategy,
        loggers=[Log()],
        global_step=0,
    )


def task() -> LinearModule:
    cfg = compose([])
    return LinearModule(nn.Linear(4, 2, bias=False), plain(cfg.optim), plain(cfg.schedule))


def train(callback: Throughput, run: Any, clock: Clock, steps: int, seconds: float) -> None:
    """So many steps of two batches, each batch of so many seconds."""
    for _ in range(steps):
        for batch in range(2):
            clock.now += seconds
            run.global_step += batch
            run.fit_loop._should_accumulate = lambda last=batch: not last
            callback.on_train_batch_end(run, task(), None, torch.zeros(8, 4), 0)


def validate(callback: Throughput, run: Any, clock: Clock) -> None:
    clock.now += 50.0
    callback.on_validation_end(run, task())


def test_rates_between_validations_leave_validation_out(clock: Clock) -> None:
    callback, run = Throughput(16, "tokens", 10), trainer()
    callback.on_train_start(run, task())
    train(callback, run, clock, steps=4, seconds=0.5)
    validate(callback, run, clock)
    train(callback, run, clock, steps=2, seconds=0.25)
    validate(callback, run, clock)
    tag = "throughput/tokens_per_second"
    assert run.loggers[0].rows == [(4, {tag: 160 / 1.0}), (6, {tag: 160 / 0.5})]
    assert callback.overall() == {"tokens_per_second": 6 * 160 / 5.0}
    assert callback.seconds == 105.0
    assert callback.reading() == "320 tokens/s"


def test_rates_without_validation(clock: Clock) -> None:
    callback, run = Throughput(16), trainer(validates=False)
    callback.on_train_start(run, task())
    for seconds in (0.5, 0.25):
        train(callback, run, clock, steps=2, seconds=seconds)
    assert [list(metrics.values()) for _, metrics in run.loggers[0].rows] == [[16.0], [32.0]]


def test_a_resumed_run_reports_of_the_time_before_too(clock: Clock) -> None:
    first, run = Throughput(16), trainer()
    first.on_train_start(run, task())
    train(first, run, clock, steps=1, seconds=0.5)
    second = Throughput(16)
    second.load_state_dict(first.state_dict())
    clock.now += 1000
    second.on_train_start(run, task())
    train(second, run, clock, steps=1, seconds=1.5)
    validate(second, run, clock)
    assert run.loggers[0].rows == [(2, {"throughput/samples_per_second": 32 / 4.0})]


def test_mfu_by_its_formula(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product of (1, 4) and (4, 2) takes 16 FLOPs, forward and backward 48; two devices can do 3000 each."""
    monkeypatch.setattr(throughput, "peak_rate", lambda device, precision: 3000.0)
    callback = Throughput(16, "samples", 1, lambda: nn.Linear(4, 2, bias=False, device="meta"))
    run = trainer()
    callback.on_train_start(run, task())
    train(callback, run, clock, steps=1, seconds=0.5)
    validate(callback, run, clock)
    assert run.loggers[0].rows[0][1]["throughput/mfu"] == pytest.approx(16 * 48 / (2 * 3000))
    assert callback.overall()["mfu"] == pytest.approx(16 * 48 / (2 * 3000))
    assert callback.reading() == "16 samples/s  MFU 12.8%"


def test_the_flops_of_attention_are_counted_in_full() -> None:
    """Q K^T and its product with V: 2 x 2 T T d, and the four projections of d x d."""
    length, width = 8, 4
    flops = training_flops(Attention(width).to("meta"), [torch.zeros(5, length, width)])
    assert flops == 3 * (4 * length**2 * width + 4 * 2 * length * width**2)


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unsqueeze(1) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1))


@pytest.mark.parametrize(
    ("name", "precision", "matmul", "tera"),
    [
        ("NVIDIA H200", "bf16-mixed", "highest", 989),
        ("NVIDIA A100-SXM4-80GB", "32-true", "highest", 19.5),
        ("NVIDIA A100-SXM4-80GB", "32-true", "high", 156),
        ("NVIDIA A100-SXM4-80GB", "16-mixed", "highest", 312),
        ("NVIDIA A100-SXM4-80GB", "64-true", "highest", None),
        ("Tesla T4", "bf16-mixed", "highest", None),
        ("NVIDIA L40S", "bf16-true", "highest", 362),
        ("NVIDIA L4000", "bf16-mixed", "highest", None),
    ],
)
def test_peak_rates_are_those_of_the_data_sheet_or_unknown(
    name: str, precision: str, matmul: str, tera: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: matmul)
    assert peak_rate(torch.device("cuda", 0), precision) == (None if tera is None else tera * 1e12)
    assert peak_rate(torch.device("cpu"), precision) is None
