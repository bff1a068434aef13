"""The samplers with the best prediction there can be, seeds, and guidance."""

from collections import deque
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import Tensor, nn

from {{cookiecutter.package_name}}.models.dit.objectives import DDPM, Flow, Objective
from {{cookiecutter.package_name}}.models.dit.sampling import Sampler, draw_noise, generators

MEAN, STD = 0.7, 0.4  # of the data below, images of one pixel
BETA = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
KEPT = (1 - BETA).cumprod(0)  # share of the data's variance in x_s


def steps_left(t: Tensor) -> Tensor:
    return (t * 1000).round().long()


class BestFlow:
    """E[x - noise | x_t], or E[x | x_t], of x ~ N(MEAN, STD^2), by linear regression."""

    def __init__(self, prediction: str = "velocity") -> None:
        self.prediction, self.calls = prediction, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        t = t.double()[:, None, None, None]
        deviation = (x.double() - t * MEAN) / ((1 - t) ** 2 + t**2 * STD**2)
        if self.prediction == "data":
            return (MEAN + t * STD**2 * deviation).float()
        return (MEAN + (t * STD**2 - (1 - t)) * deviation).float()


class BestDDPM:
    """E[noise | x_s], and the variance of x_r given x_s, where r is the step before s of those that sampling takes."""

    def __init__(self, steps: int) -> None:
        self.steps = [round(999 * place / (steps - 1)) for place in range(steps)] if steps > 1 else [999]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        step = int(steps_left(t)[0])
        place = self.steps.index(step)
        kept, before = KEPT[step], KEPT[self.steps[place - 1]] if place else torch.tensor(1.0, dtype=torch.float64)
        total = kept * STD**2 + 1 - kept  # the variance of x_s
        noise = (1 - kept).sqrt() * (x.double() - kept.sqrt() * MEAN) / total
        beta = 1 - kept / before
        least = beta * (1 - before) / (1 - kept)
        variance = beta * (before * STD**2 + 1 - before) / total
        v = 2 * (variance / least).log() / (beta / least).log() - 1 if place else torch.zeros(())
        return torch.cat((noise, torch.full_like(noise, v.item())), dim=1).float()


def sampled(objective: Objective, model: Any, steps: int, sampler: str, seeds: range = range(2000)) -> Tensor:
    _, noise = draw_noise(seeds, (1, 1, 1))
    path = objective.denoise(model, noise, steps, sampler, generators([seed + 10**6 for seed in seeds]))
    return deque(path, maxlen=1).pop().flatten()


@pytest.mark.parametrize(
    ("sampler", "steps"), [("euler", 200), ("heun", 20), ("ddpm", 100), ("ddpm", 10), ("ddim", 200)]
)
def test_the_best_prediction_samples_the_data(sampler: str, steps: int) -> None:
    """The mean of 2000 samples is within 4 of its standard errors, 0.009 each, and so is their standard deviation."""
    flow = sampler in Flow.samplers
    model = BestFlow() if flow else BestDDPM(steps)
    samples = sampled(Flow() if flow else DDPM(), model, steps, sampler)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.036)
    assert samples.std().item() == pytest.approx(STD, abs=0.026)


def test_euler_is_of_first_order_and_heun_of_second() -> None:
    """Along the exact path noise becomes MEAN + STD * noise."""
    _, noise = draw_noise(range(100), (1, 1, 1))
    exact = MEAN + STD * noise.flatten()

    def error(sampler: str, steps: int) -> float:
        return (sampled(Flow(), BestFlow(), steps, sampler, range(100)) - exact).abs().mean().item()

    assert error("heun", 10) < error("euler", 10) / 4
    assert error("euler", 20) / error("euler", 40) == pytest.approx(2, rel=0.15)
    assert error("heun", 20) / error("heun", 40) == pytest.approx(4, rel=0.3)


def test_data_and_velocity_are_the_same_prediction() -> None:
    x = torch.linspace(-2, 2, 19)[:, None, None, None]
    t = torch.linspace(0, 0.9, 19)
    velocity = Flow().velocity(BestFlow(), x, t)
    from_data = Flow(prediction="data").velocity(BestFlow("data"), x, t)
    torch.testing.assert_close(from_data, velocity, atol=1e-5, rtol=1e-5)
    by_data = sampled(Flow(prediction="data"), BestFlow("data"), 10, "euler", range(50))
    torch.testing.assert_close(by_data, sampled(Flow(), BestFlow(), 10, "euler", range(50)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1000, 20])
def test_a_ddpm_step_is_the_posteriors(steps: int) -> None:
    """Of the process that has no steps but the ones taken; each sample draws from its own source."""
    taken = [round(999 * place / (steps - 1)) for place in range(steps)]
    _, (noise, out, v) = draw_noise(range(3), (4, 1, 2, 2))
    times = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        times.append(t.tolist())
        return torch.cat((out, v.clamp(-1, 1)), dim=1)

    path = DDPM().denoise(model, noise, steps, "ddpm", generators(range(4)))
    state = noise.double()
    sources = generators(range(4))
    for place in range(steps - 1, steps - 6, -1):
        kept, before = KEPT[taken[place]], KEPT[taken[place - 1]]
        beta = 1 - kept / before
        x = (state - (1 - kept).sqrt() * out) / kept.sqrt()
        mean = before.sqrt() * beta / (1 - kept) * x + (kept / before).sqrt() * (1 - before) / (1 - kept) * state
        share = (v.double().clamp(-1, 1) + 1) / 2
        variance = beta**share * (beta * (1 - before) / (1 - kept)) ** (1 - share)
        drawn = torch.stack([torch.randn(1, 2, 2, generator=source) for source in sources])
        reached = next(path)
        torch.testing.assert_close(reached, (mean + variance.sqrt() * drawn).float(), atol=2e-3, rtol=1e-3)
        assert times[-1] == pytest.approx([taken[place] / 1000] * 4)
        state = reached.double()


def test_noise_and_times_are_fp32_in_sixteen_bits() -> None:
    """Lightning's bf16-true changes PyTorch's default, in which 0.999 would be 1."""

    def drawn() -> list[Tensor]:
        seen = [*draw_noise(range(5), (1, 2, 2))]
        for objective, steps, sampler in ((Flow(), 7, "heun"), (DDPM(), 1000, "ddim")):

            def look(x: Tensor, t: Tensor, outputs: int = objective.outputs) -> Tensor:
                seen.append(t)
                return x.repeat(1, outputs, 1, 1)

            path = objective.denoise(look, seen[1][:1], steps, sampler, generators([0]))
            seen.append(deque(path, maxlen=1).pop())
        return seen

    expected = drawn()
    with HalfPrecision("bf16-true").forward_context():
        found = drawn()
    assert {tensor.dtype for tensor in found} == {torch.float32}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("sampler", [*Flow.samplers, *DDPM.samplers])
def test_a_seed_is_a_sample_in_any_batch(sampler: str) -> None:
    objective: Objective = Flow() if sampler in Flow.samplers else DDPM()
    model = BestFlow() if sampler in Flow.samplers else BestDDPM(5)
    together = sampled(objective, model, 5, sampler, range(4))
    alone = torch.cat([sampled(objective, model, 5, sampler, range(seed, seed + 1)) for seed in range(4)])
    torch.testing.assert_close(alone, together)
    assert len(set(together.tolist())) == 4


class Marked(nn.Module):
    """Returns the label on both channels, and keeps the sizes of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return labels.float()[:, None, None, None].expand(-1, 2, 1, 1)


@pytest.mark.parametrize(("guidance", "guided", "size"), [(1.0, 3.0, 2), (0.0, 10.0, 4), (2.0, -4.0, 4)])
def test_guidance_goes_from_no_class_through_the_class(guidance: float, guided: float, size: int) -> None:
    """Of the first channel; the second stands for a variance, and is the class's."""
    model = Marked()
    sampler = Sampler(model, DDPM(), (1, 1, 1), 10, 5, guidance=guidance)
    out = sampler.predict(torch.zeros(2, 1, 1, 1), torch.full((2,), 0.5), torch.tensor([3, 3]))
    assert out.flatten(1).tolist() == [[guided, 3.0]] * 2
    assert model.sizes == [size]


@pytest.mark.parametrize("interval", [(0.3, 0.8), (0.7, 0.9), (0.0, 0.5), (0.5, 1.0)], ids=str)
def test_an_interval_has_its_start_and_not_its_end(interval: tuple[float, float]) -> None:
    """Of 50 steps of a flow, and of all 1000 of ddpm, by whole numbers; 1 is the end of the way, and belongs to it."""
    low, high = (round(1000 * end) for end in interval)
    for objective, places, steps in ((Flow(), range(0, 1000, 20), 50), (DDPM(), range(1, 1001), 1000)):
        model = Marked()
        shape, name = (2 // objective.outputs, 1, 1), objective.samplers[-1]
        next(Sampler(model, objective, shape, 10, steps, name, 3.0, interval).generate([0], [0], 1))
        assert model.sizes == [2 if low <= place < high or place == high == 1000 else 1 for place in places]


@pytest.mark.parametrize("sampler", DDPM.samplers)
@pytest.mark.parametrize("steps", [1, 7, 250])
def test_ddpm_goes_from_the_last_step_to_the_first(sampler: str, steps: int) -> None:
    seen: list[int] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append(int(steps_left(t)[0]))
        return BestDDPM(steps)(x, t)

    assert sampled(DDPM(), model, steps, sampler, range(2)).isfinite().all()
    assert len(seen) == steps
    assert seen == sorted(set(seen), reverse=True)
    assert (seen[0], seen[-1]) == (999, 0 if steps > 1 else 999)
