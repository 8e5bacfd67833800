"""Primal-dual steps in a hand-written gradient loop, against closed forms and cvxpy."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import Tensor

from solvers import InvalidInput
from solvers.primal_dual import AugmentedLagrangian, DualMethod, FixedPenalty, PIGain, PlainAscent, PrimalDual
from tests.support.curves import t as vec


def descend(engine: PrimalDual, x: Tensor, problem, steps: int, lr: float) -> Tensor:
    """Run gradient descent; ``problem`` maps x to the arguments of ``step``.  Returns every iterate, (steps, n)."""
    path = []
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(engine.step(**problem(x)), x)
        x = x - lr * gradient
        path.append(x.detach())
    return torch.stack(path)


def bilinear(x):
    """Minimise x subject to x >= 1: x = 1, lambda = 1."""
    return {"objective": x.sum(), "inequality": 1 - x}


def test_plain_ascent_cycles_for_ever_where_the_augmented_lagrangian_settles():
    plain = descend(PrimalDual(1, method=PlainAscent(step=0.1)), vec(0.0), bilinear, 4000, lr=0.1)
    assert (plain[-1000:] - 1).abs().max() > 0.5
    assert (plain[-1000:] - 1).abs().max() > 0.9 * (plain[1000:2000] - 1).abs().max()  # no smaller than before
    engine = PrimalDual(1, method=AugmentedLagrangian(rho=2.0))
    damped = descend(engine, vec(0.0), bilinear, 4000, lr=0.1)
    assert (damped[-1000:] - 1).abs().max() < 1e-12
    assert float(engine.multipliers) == pytest.approx(1.0, abs=1e-12)


def test_an_equality_has_a_multiplier_of_either_sign():
    """Minimise x^2 + y^2 subject to x + y = 1: (.5, .5), mu = -1."""
    engine = PrimalDual(0, equalities=1, method=AugmentedLagrangian(rho=1.0, step=1.0))
    path = descend(
        engine, vec(3.0, -1.0), lambda x: {"objective": (x**2).sum(), "equality": (x.sum() - 1).reshape(1)}, 400, 0.1
    )
    assert path[-1].tolist() == pytest.approx([0.5, 0.5], abs=1e-9)
    assert engine.equality_multipliers.tolist() == pytest.approx([-1.0], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_a_qp_agrees_with_cvxpy_in_primal_and_dual(seed):
    """Minimise |x|^2 subject to Ax <= b, singular values of A within (1.5, 2.5), |b| = 1."""
    draw = np.random.default_rng(seed)
    left, _, right = np.linalg.svd(draw.normal(size=(5, 10)), full_matrices=False)
    A = left @ np.diag(draw.uniform(1.5, 2.5, 5)) @ right
    b = draw.normal(size=5)
    b /= np.linalg.norm(b)
    z = cp.Variable(10)
    rows = [A @ z <= b]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(z)), rows)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    assert problem.status == "optimal"
    A_t, b_t = torch.tensor(A), torch.tensor(b)
    engine = PrimalDual(5, method=AugmentedLagrangian(rho=1.0, step=1.0))
    start = torch.zeros(10, dtype=torch.float64)
    path = descend(engine, start, lambda x: {"objective": (x**2).sum(), "inequality": A_t @ x - b_t}, 800, lr=0.1)
    np.testing.assert_allclose(path[-1].numpy(), z.value, atol=1e-6)
    np.testing.assert_allclose(engine.multipliers.numpy(), rows[0].dual_value, atol=1e-5)
    assert (engine.multipliers > 1e-3).any()
    assert (engine.multipliers < 1e-6).any()


def test_a_fixed_penalty_stays_put():
    engine = PrimalDual(1, method=FixedPenalty(2.5))
    for g in (-3.0, 0.0, 4.0):
        assert float(engine.step(vec(7.0).sum(), inequality=vec(g))) == pytest.approx(7 + 2.5 * g)
    assert engine.multipliers.tolist() == [2.5]
    assert engine.rho.tolist() == [0.0]


def test_what_is_measured_moves_the_multiplier_while_the_surrogate_gives_the_gradient():
    x = vec(2.0).requires_grad_()
    engine = PrimalDual(1, method=AugmentedLagrangian(rho=4.0, step=0.5))
    total = engine.step((x**2).sum(), inequality=-3 * x, measured=vec(0.2))
    assert engine.multipliers.tolist() == pytest.approx([0.1])  # not relu(.5 * -6) = 0
    (gradient,) = torch.autograd.grad(total, x)
    assert gradient.tolist() == pytest.approx([2 * 2 + (0.1 + 4 * 0.2) * -3])


def test_the_first_step_of_the_rule_by_hand():
    engine = PrimalDual(2, method=AugmentedLagrangian(rho=10.0))
    total = engine.step(torch.zeros((), dtype=torch.float64), inequality=vec(0.3, -0.3))
    assert engine.multipliers.tolist() == pytest.approx([0.15, 0.0])  # step = rho / 20
    assert float(total) == pytest.approx((0.15 + 10 * 0.3) * 0.3)


@pytest.mark.parametrize("absent", [0.7, float("nan"), float("inf")])
def test_absent_rows_rest_whatever_they_hold(absent):
    engine = PrimalDual(2, method=AugmentedLagrangian(rho=2.0, step=1.0, ema=0.5))
    engine.step(vec(0.0).sum(), inequality=vec(0.2, 0.4))
    before, kept = engine.multipliers.clone(), engine.state_dict()["average_sum"].clone()
    x = vec(3.0).requires_grad_()
    g = torch.cat([x, vec(absent)])
    total = engine.step(x.sum(), inequality=g, present=torch.tensor([True, False]))
    assert engine.multipliers[1] == before[1]
    assert engine.multipliers[0] > before[0]
    assert engine.state_dict()["average_sum"][1] == kept[1]
    (gradient,) = torch.autograd.grad(total, x)
    seen = (0.25 * 0.2 + 0.5 * 3) / 0.75
    assert gradient.tolist() == pytest.approx([1 + float(before[0]) + seen + 2 * seen])
    engine.step(vec(0.0).sum(), inequality=vec(0.0, 0.4))  # present again: as if nothing had been in between
    assert float(engine.multipliers[1] - before[1]) == pytest.approx(0.4)


def test_a_row_that_was_never_present_has_no_weight():
    engine = PrimalDual(1, method=AugmentedLagrangian(ema=0.9))
    total = engine.step(vec(5.0).sum(), inequality=vec(float("nan")), present=torch.tensor([False]))
    assert float(total) == 5
    assert engine.multipliers.tolist() == [0.0]


def test_the_moving_average_is_corrected_for_its_start():
    values, keep = [0.5, 0.1, 0.4, 0.3], 0.9
    engine = PrimalDual(1, method=AugmentedLagrangian(rho=1.0, step=1.0, ema=keep))
    expected = 0.0
    for t, value in enumerate(values):
        engine.step(vec(0.0).sum(), inequality=vec(value))
        weights = keep ** np.arange(t, -1, -1)
        expected += float(weights @ values[: t + 1] / weights.sum())
        assert float(engine.multipliers) == pytest.approx(expected, rel=1e-12)
    assert expected != pytest.approx(sum(values), rel=1e-3)  # without smoothing it would be the plain sum


def test_the_average_keeps_relu_unbiased_under_noise():
    """A row slack by 0.1 under noise of size 1: seen one by one it has a large weight, averaged a small one."""
    noise = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.1
    weights = {}
    for ema in (0.0, 0.99):
        engine, total = PrimalDual(1, method=AugmentedLagrangian(rho=1.0, step=0.0, ema=ema)), 0.0
        for value in noise:
            g = value.reshape(1).requires_grad_()
            total += float(torch.autograd.grad(engine.step(vec(0.0).sum(), inequality=g), g)[0])
        weights[ema] = total / len(noise)
    assert weights[0.99] < 0.1 < 0.3 < weights[0.0]


def test_a_cap_holds_and_is_reported():
    engine = PrimalDual(2, method=AugmentedLagrangian(rho=1.0, step=1.0, cap=0.5))
    for _ in range(3):
        engine.step(vec(0.0).sum(), inequality=vec(1.0, 0.1))
    assert engine.multipliers.tolist() == pytest.approx([0.5, 0.3])
    assert engine.capped.tolist() == [True, False]
    engine.step(vec(0.0).sum(), inequality=vec(-0.2, 0.0))  # no wind-up: it comes down at once
    assert engine.multipliers.tolist() == pytest.approx([0.3, 0.3])
    assert not engine.capped.any()
    assert not PrimalDual(2).capped.any()


@pytest.mark.parametrize("rows", [2, 20])
def test_weights_are_what_a_step_weighs_rows_by(rows):
    """For a caller with gradients of his own, who tells the scales as well."""
    x = torch.linspace(0.5, 2.0, rows, dtype=torch.float64).requires_grad_()
    pair, weighed = (PrimalDual(rows), PrimalDual(rows)), torch.zeros(rows, dtype=torch.bool)
    for step in range(12):
        present = torch.arange(rows) != step % 3
        values = (x**2).sum(), 3 - x * (1 + 0.1 * step)
        total = pair[0].step(*values, measured=values[1].detach() + 0.1, present=present)
        (expected,) = torch.autograd.grad(total, values[1], retain_graph=True)
        weight = pair[1].weigh(
            values[0].detach(),
            values[1].detach(),
            measured=values[1].detach() + 0.1,
            present=present,
            scales=lambda values=values, present=present: pair[1].read_scales(
                values[0], torch.where(present, values[1], 0.0)
            ),
        )
        assert torch.equal(weight, expected)
        weighed |= weight > 0
    assert same(pair[0].state_dict(), pair[1].state_dict())
    assert torch.equal(pair[0].copy_multipliers(), pair[0].multipliers)
    assert weighed.all()  # each row at some step, though violations that fall let multipliers go back to 0


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_undo_takes_the_last_step_back_bit_for_bit():
    engine = PrimalDual(2, 1, AugmentedLagrangian(ema=0.9))
    engine.undo()  # nothing to undo yet
    engine.step(vec(0.0).sum(), inequality=vec(0.1, 0.2), equality=vec(0.3))
    before = engine.state_dict()
    engine.step(vec(0.0).sum(), inequality=vec(float("nan"), 0.5), equality=vec(0.7))
    assert not same(engine.state_dict(), before)
    engine.undo()
    assert same(engine.state_dict(), before)


def test_a_state_continues_on_another_engine_bit_for_bit():
    def feed(engine, values):
        for value in values:
            engine.step(vec(0.0).sum(), inequality=vec(value, -value), equality=vec(value))

    method = AugmentedLagrangian(ema=0.9)
    whole, first, second = (PrimalDual(2, 1, method) for _ in range(3))
    feed(whole, [0.1, 0.2, 0.3, 0.4])
    feed(first, [0.1, 0.2])
    state = first.state_dict()
    second.load_state_dict(state)
    feed(second, [0.3, 0.4])
    assert same(second.state_dict(), whole.state_dict())
    assert same(first.state_dict(), state)  # copies: the second engine left the first alone


def test_a_continued_run_asks_for_scales_as_often_as_the_whole_one():
    """The second row, without a gradient until step 22, is asked in the first twenty steps, and then at step 32."""

    def run(engine, steps):
        x = vec(1.0).requires_grad_()
        for step in steps:
            engine.step((x**2).sum(), torch.cat([x - 2, x * (step >= 22) + 0.5]))

    whole, first, second = PrimalDual(2), PrimalDual(2), PrimalDual(2)
    run(whole, range(1, 31))
    run(first, range(1, 11))
    second.load_state_dict(first.state_dict())
    run(second, range(11, 31))
    assert same(second.state_dict(), whole.state_dict())
    assert whole.state_dict()["multiplier_scale"][1] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rho": None}, r"State of another problem: `rho` is nothing, wanted shape \(2,\)"),
        ({"average_sum": torch.zeros(3)}, r"`average_sum` is shape \(3,\), wanted shape \(2,\)"),
    ],
)
def test_a_state_of_another_problem_is_refused_and_nothing_changes(change, message):
    engine = PrimalDual(2)
    before = engine.state_dict()
    state = {name: value for name, value in (before | change).items() if value is not None}
    with pytest.raises(InvalidInput, match=message):
        engine.load_state_dict(state)
    assert same(engine.state_dict(), before)


@pytest.mark.parametrize("method", [AugmentedLagrangian(), PlainAscent(), AugmentedLagrangian(ema=0.9, cap=2.0)])
def test_multipliers_stay_float64_and_nonnegative(method):
    draw = torch.Generator().manual_seed(1)
    engine = PrimalDual(3, method=method)
    for _ in range(200):
        total = engine.step(torch.zeros(()), inequality=torch.randn(3, generator=draw) - 0.2)
        assert total.dtype == torch.float32
        assert engine.multipliers.dtype == torch.float64
        assert (engine.multipliers >= 0).all()
    assert (engine.multipliers > 0).any()


def test_methods_are_values():
    assert AugmentedLagrangian(rho=10.0) == AugmentedLagrangian(rho=10.0, step=0.5)
    assert AugmentedLagrangian() != AugmentedLagrangian(rho=AugmentedLagrangian().rho0)  # one has units, one has none
    with pytest.raises(AttributeError):
        PlainAscent().step = 2.0
    assert "rho0=10.0" in repr(AugmentedLagrangian(rho=10.0))


REFUSED = {
    "rho zero": (lambda: AugmentedLagrangian(rho=0), r"`rho` of AugmentedLagrangian is 0.*use PlainAscent\(\)"),
    "rho nan": (lambda: AugmentedLagrangian(rho=float("nan")), "`rho` of AugmentedLagrangian is nan"),
    "rho in words": (lambda: AugmentedLagrangian(rho="10"), "`rho` of AugmentedLagrangian is '10'; it must be above 0"),
    "step in words": (lambda: PlainAscent(step="big"), "`step` of PlainAscent is 'big'; it must be at least 0"),
    "no step": (lambda: PlainAscent(step=None), "`step` of PlainAscent is None; it must be at least 0 and finite"),
    "a weight in words": (lambda: FixedPenalty("1"), "`weight` of FixedPenalty is '1'; it must be at least 0"),
    "a gain in words": (lambda: PIGain(gain="1"), "`rho` of PIGain is '1'; it must be at least 0"),
    "step": (lambda: PlainAscent(step=-1), "`step` of PlainAscent is -1; it must be at least 0 and finite"),
    "step inf": (lambda: PlainAscent(step=float("inf")), "`step` of PlainAscent is inf"),
    "ema": (lambda: AugmentedLagrangian(ema=1.0), r"`ema` of AugmentedLagrangian is 1.0; it must be in \[0, 1\)"),
    "cap": (lambda: PlainAscent(cap=0.0), "`cap` of PlainAscent is 0.0; it must be above 0"),
    "weight": (lambda: FixedPenalty(-1.0), "`weight` of FixedPenalty is -1.0; it must be at least 0"),
    "range": (lambda: PrimalDual(2, least_range=-1.0), "`least_range` is -1.0; wanted a number of at least 0, or one"),
    "ranges": (lambda: PrimalDual(2, least_range=[0.1, 0.1, 0.1]), r"`least_range` is \[0.1, 0.1, 0.1\]; wanted"),
    "count": (lambda: PrimalDual(-1), "Counts of constraints cannot be negative: got -1 and 0"),
    "multipliers": (
        lambda: setattr(PrimalDual(2), "multipliers", vec(1, 2, 3)),
        r"Multipliers have shape \(3,\); wanted \(2,\)",
    ),
    "start": (
        lambda: DualMethod(0.0, 1.0, start=-1.0),
        "`start` of DualMethod is -1.0; it must be at least 0 and finite",
    ),
    "no g": (lambda: PrimalDual(1).step(vec(0.0).sum()), "`inequality` is missing: this engine holds 1 multipliers"),
    "no h": (lambda: PrimalDual(0, 2).step(vec(0.0).sum()), "`equality` is missing: this engine holds 2"),
    "shape of g": (
        lambda: PrimalDual(1).step(vec(0.0).sum(), inequality=vec(1, 2)),
        r"`inequality` has shape \(2,\); this engine was made for \(1,\)",
    ),
    "shape of measured": (
        lambda: PrimalDual(1).step(vec(0.0).sum(), inequality=vec(1.0), measured=torch.tensor(1.0)),
        r"`measured` has shape \(\); this engine was made for \(1,\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_named(case):
    wrong, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        wrong()
