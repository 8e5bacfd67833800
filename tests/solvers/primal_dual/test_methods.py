"""The rules by which multipliers move, against each other, against closed forms, and under noise and odd units."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from solvers import InvalidInput
from solvers.primal_dual import (
    DUAL_METHODS,
    AugmentedLagrangian,
    MultiplierNetwork,
    PIGain,
    PlainAscent,
    PrimalDual,
)
from tests.support.curves import t as vec


def descend(engine, x0, problem, steps, lr, optimizer=torch.optim.SGD):
    """Return every iterate, (steps, n); ``problem`` maps x to what ``step`` takes."""
    x = x0.clone().requires_grad_()
    moving, path = optimizer([x], lr=lr), []
    for _ in range(steps):
        engine.step_with(lambda: problem(x), moving)
        path.append(x.detach().clone())
    return torch.stack(path)


def bilinear(x):
    return {"objective": x.sum(), "inequality": 1 - x}


def noise(size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------------- one rule, written twice


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_on_equalities_pi_gain_and_the_augmented_lagrangian_take_the_same_path(optimizer):
    """Written as a sum, the controller begins with rho h; written as differences, a first value has not changed."""
    A, b = noise((3, 6)), noise(3, 1)

    def problem(x):
        return {"objective": (x**2).sum() + (x**4).sum(), "equality": A @ x - b}

    engines = [PrimalDual(0, 3, method) for method in (PIGain(gain=4.0, step=0.3), AugmentedLagrangian(4.0, 0.3))]
    engines[1].equality_multipliers = -4.0 * problem(noise(6, 2))["equality"]
    paths = [descend(engine, noise(6, 2), problem, 300, 0.01, optimizer) for engine in engines]
    assert (paths[0] - paths[1]).abs().max() <= 1e-12
    assert (A @ paths[0][-1] - b).abs().max() < 0.1  # and it is a path to somewhere


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    ema=st.sampled_from([0.0, 0.9]),
    kind=st.sampled_from(["augmented", "pi", "plain"]),
    band=st.sampled_from([0.0, 0.1]),
    restart=st.booleans(),
)
def test_rows_by_index_follow_the_path_of_rows_as_they_are(seed, ema, kind, band, restart):
    method = {
        "augmented": AugmentedLagrangian(rho=2.0, ema=ema, cap=3.0, dead_band=band, restart=restart),
        "pi": PIGain(gain=2.0, ema=ema, dead_band=band),
        "plain": PlainAscent(ema=ema, dead_band=band, restart=restart),
    }[kind]
    dense, indexed = PrimalDual(5, 1, method), PrimalDual(5, 1, method)
    for turn in range(12):
        g, h = noise(5, seed + turn), noise(1, seed - turn - 1)
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed + turn))
        one = dense.step(vec(0.0).sum(), g, h)
        other = indexed.step(vec(0.0).sum(), g[order], h, index=order)
        assert float(one) == pytest.approx(float(other), rel=1e-12, abs=1e-12)
        for name, held in dense.state_dict().items():
            assert torch.equal(held, indexed.state_dict()[name]), name


def test_a_row_that_the_batch_leaves_out_rests():
    engine = PrimalDual(4, method=AugmentedLagrangian(rho=1.0, step=1.0))
    total = engine.step(vec(0.0).sum(), vec(0.5, -1.0), index=torch.tensor([3, 0]))
    assert engine.multipliers.tolist() == [0.0, 0.0, 0.0, 0.5]
    assert float(total) == pytest.approx(4 / 2 * (0.5 + 0.5) * 0.5)  # two rows stand for four
    engine.undo()
    assert engine.multipliers.tolist() == [0.0] * 4


def test_one_constraint_an_example_in_minibatches_finds_the_constrained_point():
    """Nearest x to c with x_i <= u for all i, four examples at a time: clipping, and lambda_i = 2 (c_i - u)+.

    Between its turns a row drifts by the rate times its multiplier, so it is the average that settles.
    """
    c, u = vec(0.2, 1.5, 0.9, 2.0, -1.0, 0.4, 1.1, 3.0), 1.0
    x = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    engine, moving = PrimalDual(8, method=AugmentedLagrangian(rho=2.0, step=0.1)), torch.optim.SGD([x], lr=0.02)
    draw, multipliers, points = torch.Generator().manual_seed(0), [], []
    for _ in range(4000):
        index = torch.randperm(8, generator=draw)[:4]
        engine.step_with(
            lambda index=index: {"objective": ((x - c) ** 2).sum(), "inequality": x[index] - u, "index": index}, moving
        )
        multipliers.append(engine.multipliers.clone())
        points.append(x.detach().clone())
    assert torch.stack(points[-3000:]).mean(0).tolist() == pytest.approx(c.clamp_max(u).tolist(), abs=0.05)
    assert torch.stack(multipliers[-3000:]).mean(0).tolist() == pytest.approx(
        (2 * (c - u).clamp_min(0)).tolist(), abs=0.15
    )


# --------------------------------------------------------------------------------------------------- the registry


@pytest.mark.parametrize("name", DUAL_METHODS)
def test_every_registered_rule_is_built_without_arguments_and_says_what_it_is(name):
    rule = DUAL_METHODS[name]
    assert rule.name == name
    assert rule().name == name
    assert len(rule.describe()) > 20
    PrimalDual(1, method=rule()).step(vec(1.0).sum(), vec(0.5))


# ------------------------------------------------------------------------------------------------- the bilinear trap


@pytest.mark.parametrize("method", [AugmentedLagrangian(), PIGain(), PIGain(ema=0.5), AugmentedLagrangian(cap=5.0)])
def test_every_damped_rule_settles_where_plain_ascent_cycles(method):
    engine = PrimalDual(1, method=method)
    path = descend(engine, vec(0.0), bilinear, 6000, lr=0.1)
    assert abs(float(path[-1]) - 1) < 1e-10
    assert float(engine.multipliers) == pytest.approx(1.0, abs=1e-10)


# ----------------------------------------------------------------------------------------------- units and robustness


def on_a_line(x):
    return {"objective": (x**2).sum(), "equality": (x.sum() - 1).reshape(1)}


@pytest.mark.parametrize("problem", [bilinear, on_a_line])
@pytest.mark.parametrize(("loss", "row"), [(1024.0, 1.0), (1.0, 1024.0), (2.0**-10, 2.0**10)])  # which round alike
def test_factors_on_objective_and_rows_change_nothing_but_multipliers(problem, loss, row):
    """Adam makes the primal step free of units, the engine the dual one."""

    def scaled(x):
        return {name: (loss if name == "objective" else row) * value for name, value in problem(x).items()}

    kinds = (1, 0) if problem is bilinear else (0, 1)
    engines = [PrimalDual(*kinds), PrimalDual(*kinds)]
    paths = [
        descend(
            engine, vec(3.0, -1.0)[: kinds[1] + 1], one, 1500, 0.05, lambda p, lr: torch.optim.Adam(p, lr, eps=1e-30)
        )
        for engine, one in zip(engines, (problem, scaled), strict=True)
    ]
    assert (paths[0] - paths[1]).abs().max() < 1e-6
    multipliers = [torch.cat([engine.multipliers, engine.equality_multipliers]) for engine in engines]
    assert (multipliers[0] - multipliers[1] * row / loss).abs().max() < 1e-6


@pytest.mark.parametrize("method", [PIGain(), AugmentedLagrangian()])
@pytest.mark.parametrize("lr", [0.01, 0.1, 0.45])
def test_a_primal_step_that_is_too_long_for_the_gain_makes_it_softer(lr, method):
    """At a rate of .45 a gain of three units would throw x from side to side for ever."""
    engine = PrimalDual(0, 1, method)
    path = descend(engine, vec(3.0, -1.0), on_a_line, 3000, lr)
    assert path[-1].tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    assert float(engine.equality_multipliers) == pytest.approx(-1, abs=1e-5)


def test_a_start_at_the_minimum_of_the_objective_has_its_unit_from_the_curvature():
    c = vec(1.0, 2.0)
    engine = PrimalDual(1)
    path = descend(
        engine, c, lambda x: {"objective": ((x - c) ** 2).sum(), "inequality": (x.sum() - 1).reshape(1)}, 1500, 0.05
    )
    assert path[-1].tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    assert float(engine.multipliers) == pytest.approx(2.0, abs=1e-5)


# ----------------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_an_inactive_constraint_keeps_a_multiplier_near_zero_under_noise(ema):
    engine = PrimalDual(1, method=AugmentedLagrangian(rho=3.0, ema=ema))
    seen = []
    for value in noise(5000) * 0.1 - 0.1:
        engine.step(vec(0.0).sum(), value.reshape(1))
        seen.append(float(engine.multipliers))
    assert sum(seen) / len(seen) < 0.02
    assert max(seen) < 0.15


def test_a_dead_band_lets_small_violations_pass_and_shrinks_the_others():
    engine = PrimalDual(2, method=AugmentedLagrangian(rho=1.0, step=1.0, dead_band=0.1))
    for _ in range(10):
        engine.step(vec(0.0).sum(), vec(0.09, 0.3))
    assert engine.multipliers.tolist() == pytest.approx([0.0, 2.0])


def test_a_restart_forgets_the_multiplier_once_the_row_is_met():
    engine = PrimalDual(1, 1, method=PlainAscent(step=1.0, restart=True))
    engine.step(vec(0.0).sum(), vec(2.0), vec(2.0))
    engine.step(vec(0.0).sum(), vec(-0.1), vec(-0.1))
    assert engine.multipliers.tolist() == [0.0]
    assert engine.equality_multipliers.tolist() == pytest.approx([1.9])  # equalities are never met with room to spare


def test_the_cap_holds_for_weights_and_for_equalities_of_either_sign():
    x = vec(1.0).requires_grad_()
    engine = PrimalDual(1, 1, method=AugmentedLagrangian(rho=100.0, step=1.0, cap=2.0))
    total = engine.step(0 * x.sum(), 5 * x, -5 * x)
    (gradient,) = torch.autograd.grad(total, x)
    assert float(gradient) == pytest.approx(2 * 5 + 2 * 5)
    assert engine.capped.tolist() == [True, True]
    assert engine.equality_multipliers.tolist() == [-2.0]


def test_values_of_another_batch_take_the_bias_out_of_the_penalty():
    """E[ghat grad ghat] is not E[g] E[grad g]: gradient and value of one batch put the mean off, of two they do not."""
    draw = torch.Generator().manual_seed(0)
    x = vec(1.0).requires_grad_()
    means = {}
    for independent in (False, True):
        total = 0.0
        for _ in range(3000):
            a, b = 1 + torch.randn(2, generator=draw, dtype=torch.float64)
            engine = PrimalDual(0, 1, method=AugmentedLagrangian(rho=1.0, step=0.0))
            h = (a * x - 1).reshape(1)
            other = (b * x - 1).detach().reshape(1) if independent else None
            total += float(torch.autograd.grad(engine.step(0 * x.sum(), equality=h, measured_equality=other), x)[0])
        means[independent] = total / 3000
    assert means[True] == pytest.approx(0.0, abs=0.1)  # E[a] x - 1 = 0 at x = 1
    assert means[False] == pytest.approx(1.0, abs=0.2)  # Var[a] x


# --------------------------------------------------------------------------------------------------------- networks


def test_a_network_gives_multipliers_to_examples_that_share_a_rule():
    """Nearest x to c with x_i <= 1: a network of c learns lambda_i = 8 * 2 (c_i - 1)+, of a mean of eight."""
    torch.manual_seed(0)
    c = torch.linspace(-1, 3, 8, dtype=torch.float64)
    x = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    network = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    engine = MultiplierNetwork(network, torch.optim.Adam(network.parameters(), lr=0.02), rho=8.0)
    moving = torch.optim.SGD([x], lr=0.1)
    for _ in range(3000):
        total = engine.step(((x - c) ** 2).sum(), x - 1, c[:, None])
        moving.zero_grad()
        total.backward()
        moving.step()
    assert x.detach().tolist() == pytest.approx(c.clamp_max(1.0).tolist(), abs=0.1)
    with torch.no_grad():
        multipliers = engine.multipliers(c[:, None])
    assert multipliers.tolist() == pytest.approx((16 * (c - 1).clamp_min(0)).tolist(), abs=1.5)


def test_a_network_that_sees_nan_stays_as_it_is():
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    before = [p.detach().clone() for p in network.parameters()]
    engine = MultiplierNetwork(network, torch.optim.SGD(network.parameters(), lr=1.0))
    total = engine.step(torch.zeros(()), torch.tensor([float("nan"), 1.0]), torch.ones(2, 2))
    assert not torch.isfinite(total)
    assert all(torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))
    engine.step(torch.zeros(()), torch.tensor([1.0, 1.0]), torch.ones(2, 2))
    assert not all(torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))


def over_examples(outputs):
    network = nn.Linear(1, outputs)
    return MultiplierNetwork(network, torch.optim.SGD(network.parameters(), lr=0.1))


REFUSED = {
    "rho": (lambda: MultiplierNetwork(nn.Linear(1, 1), None, rho=-1), "`rho` of MultiplierNetwork is -1"),
    "optimizer": (
        lambda: MultiplierNetwork(nn.Linear(1, 1), torch.optim.SGD([vec(0.0)], lr=1)),
        "`optimizer` holds no parameter of the network",
    ),
    "two multipliers each": (
        lambda: over_examples(outputs=2).multipliers(torch.ones(3, 1)),
        r"The network gives shape \(3, 2\) for 3 examples; wanted one number each",
    ),
    "rows of others": (
        lambda: over_examples(outputs=1).step(vec(0.0).sum(), vec(1.0), torch.ones(3, 1)),
        r"`inequality` has shape \(1,\) for 3 examples; wanted one each",
    ),
    "index twice": (
        lambda: PrimalDual(3).step(vec(0.0).sum(), vec(1.0, 1.0), index=torch.tensor([1, 1])),
        r"`index` must hold distinct numbers from 0 to 2; found \[1, 1\]",
    ),
    "index too far": (
        lambda: PrimalDual(3).step(vec(0.0).sum(), vec(1.0), index=torch.tensor([3])),
        r"distinct numbers from 0 to 2; found \[3\]",
    ),
    "present": (
        lambda: PrimalDual(2).step(vec(0.0).sum(), vec(1.0, 1.0), present=torch.tensor([True])),
        r"`present` has shape \(1,\); wanted \(2,\)",
    ),
    "evaluate": (
        lambda: PrimalDual(1).step_with(lambda: 3.0, torch.optim.SGD([vec(0.0)], lr=1)),
        r"`evaluate` returned float; wanted \(f, g\)",
    ),
    "dead band": (lambda: PlainAscent(dead_band=-1.0), "`dead_band` of PlainAscent is -1.0; it must be at least 0"),
    "gain": (lambda: PIGain(gain=-1.0), "`rho` of PIGain is -1.0; it must be at least 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_named(case):
    wrong, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        wrong()
