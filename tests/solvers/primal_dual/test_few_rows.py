"""Three ways to move the same rows: plain numbers, arrays of numpy, tensors of torch as on a GPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solvers.primal_dual import AugmentedLagrangian, FixedPenalty, PIGain, PlainAscent, PrimalDual
from solvers.primal_dual import _engine as engine_module
from solvers.primal_dual import _engine_state as state_module
from solvers.primal_dual import _few_rows as few

METHODS = [
    PIGain(),
    PIGain(ema=0.9),
    PIGain(gain=2.0, ema=0.5),
    PIGain(step=3.0, cap=0.4, dead_band=0.05),
    AugmentedLagrangian(),
    AugmentedLagrangian(ema=0.9, cap=0.7),
    AugmentedLagrangian(rho=3.0, restart=True),
    AugmentedLagrangian(restart=True, dead_band=0.1),
    PlainAscent(ema=0.9),
    FixedPenalty(2.0),
]


@pytest.fixture
def take(monkeypatch):
    """Return what chooses one of the three ways."""

    def choose(way):
        monkeypatch.setattr(few, "SETTINGS", few.FewRowsSettings(most=100 if way == "plain" else 0))
        monkeypatch.setattr(engine_module, "FEW_ROWS", few.SETTINGS)
        for module in (engine_module, state_module):
            monkeypatch.setattr(module, "to_array", tensor_of if way == "torch" else module_to_array)

    return choose


module_to_array = engine_module.to_array


def tensor_of(values, device, dtype=torch.float64):
    return values.detach().to(device, dtype)


@st.composite
def walks(draw):
    """Draw how many rows of each kind, and what they show in some steps, some rows being absent."""
    M, E = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    M += M + E == 0
    seed, steps, scale = draw(st.integers(0, 10**6)), draw(st.integers(1, 40)), draw(st.sampled_from([1e-6, 1.0, 1e4]))
    return M, E, seed, steps, scale, draw(st.sampled_from([0.0, 0.4])), draw(st.sampled_from([0.0, 0.2]))


def walk(method, M, E, seed, steps, scale, absent, trend):
    """Return the state after some steps, and what each of them gave to minimize."""
    random = np.random.default_rng(seed)
    engine = PrimalDual(M, E, method, least_range=0.01 * scale, horizon=500)
    x, totals = torch.ones(3, dtype=torch.float64, requires_grad=True), []
    slope_C3 = torch.from_numpy(random.standard_normal((M + E, 3)))
    for step in range(steps):
        value_C = torch.from_numpy(scale * (random.standard_normal(M + E) + trend * step))
        present = torch.from_numpy(random.random(M + E) >= absent) if absent else None
        if present is not None:
            value_C = torch.where(present, value_C, math.nan)  # an absent row may hold anything
        rows_C = scale * (slope_C3 @ (x - 1)) + value_C
        f = (x**2).sum() * (1 + trend * step) + random.standard_normal()
        totals.append(engine.step(f, rows_C[:M], rows_C[M:], present=present).detach())
        if random.random() < 0.1:
            engine.undo()
    return engine.state_dict(), torch.stack(totals)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(case=walks(), method=st.sampled_from(METHODS))
def test_the_three_ways_agree(take, case, method):
    answers = {}
    for way in ("plain", "numpy", "torch"):
        take(way)
        answers[way] = walk(method, *case)
    state, totals = answers.pop("torch")
    for way, (other, other_totals) in answers.items():
        for name, value in state.items():
            torch.testing.assert_close(other[name], value, rtol=1e-11, atol=1e-12, equal_nan=True, msg=f"{way}: {name}")
        torch.testing.assert_close(other_totals, totals, rtol=1e-11, atol=1e-12)


def test_steps_that_are_too_long_and_values_that_are_not_finite_are_left_to_the_general_way(take, monkeypatch):
    """Both give the same, and both were asked."""
    asked, general = [], engine_module.move_arrays
    monkeypatch.setattr(engine_module, "move_arrays", lambda *parts: asked.append(0) or general(*parts))

    def run():
        engine, x = PrimalDual(1), torch.zeros((), dtype=torch.float64, requires_grad=True)
        for step in [-1, -2, -3, *range(30)]:  # then both rise, whatever the multiplier does
            engine.step(x + 5.0**step, (x + 2.0**step).reshape(1))
        engine.step(x, (x + math.inf).reshape(1))
        return engine.state_dict()

    take("plain")
    plain = run()
    assert 1 < len(asked) < 34
    take("numpy")
    for name, value in run().items():
        torch.testing.assert_close(plain[name], value, rtol=1e-12, atol=0, equal_nan=True)


def test_a_rule_of_somebodys_own_is_asked_itself():
    class Halved(PIGain):
        def update(self, lambda_C, inputs):
            return lambda_C * 0 + 0.5, lambda_C * 0 + 0.25

    engine, x = PrimalDual(2, method=Halved()), torch.ones(2, dtype=torch.float64, requires_grad=True)
    total = engine.step(x.sum(), x)
    assert engine.multipliers.tolist() == [0.5, 0.5]
    assert float(total.detach()) == 2 + 2 * 0.25


def test_the_default_rule_takes_plain_numbers_in_few_rows_only(monkeypatch):
    asked = []
    monkeypatch.setattr(engine_module, "move_rows", lambda *parts: asked.append(len(parts[1])))
    for rows in (1, few.SETTINGS.most, few.SETTINGS.most + 1):
        x = torch.ones(rows, requires_grad=True)
        PrimalDual(rows).step(x.sum(), -x)  # met, so that no scale is read
    assert asked == [1, few.SETTINGS.most]
