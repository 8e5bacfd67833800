"""What an engine keeps of the past where its rule does not say: nothing on a smooth way, most of it in noise."""

from __future__ import annotations

import pytest
import torch

from solvers.primal_dual import AugmentedLagrangian, PIGain, PlainAscent, PrimalDual
from tests.support.curves import t as vec


def noise(size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def watch(values, method=None) -> PrimalDual:
    """Return an engine that has seen violations which nothing moves."""
    engine, x = PrimalDual(1, method=method), vec(0.0).requires_grad_()
    for value in values:
        engine.step(x.sum(), value - x)
    return engine


def read_smoothing(values, method=None) -> float:
    return float(watch(values, method).state_dict()["smoothing"])


def test_a_smooth_row_is_seen_as_it_is():
    falling = [0.99**step for step in range(200)]
    engine = watch(falling)
    assert float(engine.state_dict()["smoothing"]) == 0.0
    assert float(engine.smoothed) == pytest.approx(falling[-1], rel=0.02)  # what was kept at first is long gone
    swinging = torch.sin(torch.arange(400) / 8)  # 25 steps to and 25 fro
    assert read_smoothing(swinging.tolist()) < 0.15


@pytest.mark.parametrize("trend", [0.0, 1.0])
def test_noise_is_averaged_whatever_its_unit(trend):
    values = trend * torch.linspace(3, 0, 400, dtype=torch.float64) + noise(400)
    for unit in (1e-6, 1.0, 1e6):
        assert read_smoothing((unit * values).tolist()) > 0.8
    seen = watch(values.tolist()).smoothed - watch(values.tolist(), PIGain(ema=0.9)).smoothed
    assert abs(float(seen)) < 0.2


def test_a_row_that_rests_is_not_smoothed():
    assert read_smoothing([1.0] * 100) == 0.0


def test_rules_that_say_how_to_smooth_are_obeyed():
    values = noise(50).tolist()
    assert float(watch(values, PIGain(ema=0.0)).smoothed) == pytest.approx(values[-1])
    assert float(watch(values, PlainAscent()).smoothed) == pytest.approx(values[-1])
    assert float(watch(values, AugmentedLagrangian(rho=1.0)).smoothed) == pytest.approx(values[-1])


def test_absent_rows_keep_what_is_known_of_their_noise():
    engine, x = PrimalDual(2), vec(0.0).requires_grad_()
    for value in noise(60):
        engine.step(x.sum(), torch.stack([value - x[0], 1 - x[0]]), present=torch.tensor([True, True]))
    before = engine.state_dict()
    engine.step(x.sum(), torch.stack([torch.tensor(torch.nan) * x[0], 1 - x[0]]), present=torch.tensor([False, True]))
    after = engine.state_dict()
    for name in ("seen_value", "seen_change", "seen_changes", "seen_reversals", "smoothing"):
        assert float(after[name][0]) == float(before[name][0])


@pytest.mark.parametrize("method", [PIGain, AugmentedLagrangian])
def test_small_noisy_batches_are_held_in_a_plain_loop_as_by_a_rule_that_knows_of_noise(method):
    """A softmax whose safety is read off four noisy examples a step; without smoothing its multiplier hardly moves."""

    def end(**more: float) -> float:
        engine, draw = PrimalDual(1, method=method(**more)), torch.Generator().manual_seed(0)
        q, z = vec(0.3, 0.5, 0.2), torch.zeros(3, dtype=torch.float64, requires_grad=True)
        adam, late = torch.optim.Adam([z], lr=0.01), []
        for step in range(800):
            jitter = torch.randn(64, 3, generator=draw, dtype=torch.float64)
            p_B3 = torch.softmax(z + jitter, -1)
            loss = (q * (q.log() - p_B3.log())).sum(-1).mean()
            engine.step_with(lambda loss=loss, p_B3=p_B3: (loss, 0.6 - p_B3[:4, 0].mean().reshape(1)), adam)
            if step >= 600:
                with torch.no_grad():
                    late.append(float(torch.softmax(z + noise(3000).reshape(-1, 3), -1)[:, 0].mean()))
        return sum(late) / len(late)

    found, known, blind = end(), end(ema=0.9), end(ema=0.0)
    assert abs(found - 0.6) < 0.03
    assert abs(found - 0.6) <= abs(known - 0.6) + 0.02
    assert blind < found - 0.03
