"""How a run ends, and which students it keeps: verdicts against closed forms and hand-made traces."""

from __future__ import annotations

import math

import pytest
import torch

import safekd as kd
from safekd.safety import Recall
from safekd.tracer import ConstraintReading, TracePoint
from safekd.trainer._keeper import Keeper
from safekd.trainer._verdict import ending, is_converged
from solvers.kkt import KKTResiduals

from .problems import FreeLogits, agreeing, at_least, one_each, price, same, state, trainer_for


def test_too_few_steps_are_told():
    result = trainer_for(at_least(0.6), lr=0.001).fit(one_each(), epochs=5)
    assert result.status == "budget_spent"
    assert "a constraint is still violated" in result.message
    assert "Train longer" in result.next_move
    assert not result.feasible


def test_contradictory_requirements_are_infeasible_with_evidence():
    """One distribution cannot give .9 to each of two classes; the least violation is (.5, .5)."""
    rules = at_least(0.9, "zero"), at_least(0.9, "one", critical=1)
    result = trainer_for(*rules, lr=0.1).fit(one_each(), epochs=2000, trace_every=50)
    assert result.status == "infeasible", result.message
    assert "below its threshold 0.9" in result.message
    assert "Best safety reached" in result.message
    assert "Lower the threshold" in result.next_move
    assert result.best_feasible is None
    assert result.most_feasible.p()[:2] == pytest.approx([0.5, 0.5], abs=0.02)


def test_a_cap_that_binds_is_named():
    result = trainer_for(at_least(0.6), dual=kd.AugmentedLagrangian(cap=0.1, growth=1.0)).fit(one_each(), epochs=500)
    assert result.status == "cap_active"
    assert "The multiplier of first stands at its cap" in result.message
    assert result.multipliers == {"first": 0.1}
    enough = trainer_for(at_least(0.6), dual=kd.AugmentedLagrangian(cap=10.0)).fit(one_each(), epochs=500)
    assert enough.status == "converged"


def test_a_growing_multiplier_alone_is_not_infeasible():
    """So slow a student that its price outgrows the optimal one long before it gets there."""
    steady = kd.AugmentedLagrangian(growth=1.0)
    result = trainer_for(at_least(0.6), lr=1e-4, dual=steady).fit(one_each(), epochs=200)
    assert (result.trace["lambda_first"].diff().dropna() > 0).all()
    assert result.multipliers["first"] > 10 * price(0.6)
    assert not result.feasible
    assert result.status == "budget_spent"


def test_a_constraint_without_a_multiplier_is_not_called_infeasible():
    """p_0 >= 1 is met in the limit only; its multiplier diverges while the violation still falls."""
    result = trainer_for(at_least(1.0)).fit(one_each(), epochs=500)
    assert result.status == "budget_spent"
    assert result.trace["violation_first"].iloc[-1] < 0.1


def reading(measured=0.8, required=0.8, name="a", **more):
    return ConstraintReading(name, "train", measured, measured, required, 100, 0.01, **more)


def point(*readings, prices, residuals=(0.0, 0.0, 0.0, 0.0), step=0, loss=1.0):
    return TracePoint(step, step, loss, readings, prices, [10.0] * len(prices), KKTResiduals(*residuals), 1.0, 0.0)


def test_convergence_is_never_granted_to_what_is_violated_or_not_a_number():
    rules = [at_least(0.8, "a")]
    assert is_converged(point(reading(), prices=[1.0]), rules, 1e-3)
    for residuals in [(0.1, 0, 0, 0), (0, 0.1, 0, 0), (0, 0, 0.1, 0), (math.nan, 0, 0, 0), (0, math.nan, 0, 0)]:
        assert not is_converged(point(reading(), prices=[1.0], residuals=residuals), rules, 1e-3)
    assert not is_converged(point(reading(0.9), prices=[1.0], residuals=(0, 0, 0, 0.1)), rules, 1e-3)


def test_only_a_counted_measure_may_be_one_step_from_tight():
    counted = kd.SafetyConstraint("a", Recall(critical=[0]), 0.75)
    slack = point(reading(0.8, 0.75, resolution=0.1), prices=[1.0], residuals=(0, 0, 0, 0.05))
    assert is_converged(slack, [counted], 1e-3)
    smooth = point(reading(0.8, 0.75), prices=[1.0], residuals=(0, 0, 0, 0.05))
    assert not is_converged(smooth, [at_least(0.75, "a")], 1e-3)
    wide = point(reading(0.9, 0.75, resolution=0.1), prices=[1.0], residuals=(0, 0, 0, 0.15))
    assert not is_converged(wide, [counted], 1e-3)
    below = point(reading(0.74, 0.75, resolution=0.1), prices=[1.0], residuals=(0, 0.01, 0, 0.01))
    assert not is_converged(below, [counted], 1e-3)
    both = point(  # the counted one lends nothing to its neighbour
        reading(0.8, 0.8, resolution=0.1), reading(0.8, 0.75, "b"), prices=[1.0, 1.0], residuals=(0, 0, 0, 0.05)
    )
    assert not is_converged(both, [counted, at_least(0.75, "b")], 1e-3)


def test_infeasible_needs_both_a_flat_violation_and_one_that_stands_still():
    def verdict(violations, slope, prices):
        points = [
            point(reading(0.9 - v, 0.9), prices=[p], residuals=(1.0, v, 0.0, v), step=i)
            for i, (v, p) in enumerate(zip(violations, prices, strict=True))
        ]
        return ending(points, [at_least(0.9, "a")], torch.tensor([[slope, 0.0]]).double(), 1e-3, []).status

    growing = [1.0, 10.0, 100.0, 1000.0, 1e4]
    assert verdict([0.4] * 5, 1e-5, growing) == "infeasible"
    assert verdict([0.4] * 5, 1e-5, [1.0] * 5) == "infeasible"
    assert verdict([0.4] * 5, 0.1, growing) == "budget_spent"  # it could still fall
    assert verdict([0.4, 0.38, 0.36, 0.34, 0.32], 1e-5, growing) == "budget_spent"  # it still falls
    assert verdict([0.4] * 3, 1e-5, growing[:3]) == "budget_spent"  # too little was seen


@pytest.mark.parametrize("seed", range(6))
def test_a_converged_verdict_survives_an_independent_check(seed):
    """Random problems, random budgets: whoever is called converged meets every threshold and is stationary."""
    draw = torch.Generator().manual_seed(seed)
    q = torch.softmax(torch.randn(3, generator=draw, dtype=torch.float64), -1)
    s = 0.2 + 0.7 * torch.rand(2, generator=draw).double()
    rules = at_least(float(s[0]), "zero"), at_least(float(s[1]), "one", critical=1)
    result = trainer_for(*rules, teachers=agreeing(q.tolist()), lr=0.2).fit(one_each(), epochs=(100, 1000)[seed % 2])
    p = torch.softmax(result.student.logits.detach()[0], -1)
    possible = bool(s.sum() < 1)
    met = bool(p[0] >= s[0] - 1e-3) and bool(p[1] >= s[1] - 1e-3)
    assert result.feasible == met
    if result.status == "converged":
        assert possible
        assert met
        price_V = torch.tensor([*result.multipliers.values(), 0.0]).double()
        gain_V = q / p + price_V  # d(-L)/dp_k; at a KKT point alike for every class
        assert float((p * (gain_V - (p * gain_V).sum())).norm()) < 2e-3
    assert result.status != "infeasible" or not possible


def test_best_feasible_and_most_feasible_are_the_audited_ones():
    students, points = [], []
    trainer = trainer_for(at_least(0.6), lr=1.0, dual=kd.AugmentedLagrangian(rho=30.0))

    def remember(point):
        points.append(point)
        students.append(state(trainer.student))

    result = trainer.fit(one_each(), epochs=40, trace_every=1, tolerance=1e-12, on_trace=remember)
    violations = [point.readings[0].violation for point in points]
    assert any(v > 1e-3 for v in violations)
    feasible = [i for i, v in enumerate(violations) if v <= 1e-3]
    best = min(feasible, key=lambda i: points[i].loss)
    assert best != len(points) - 1  # the test means something
    assert same(state(result.best_feasible), students[best])
    assert same(state(result.most_feasible), students[best])
    assert same(state(result.student), students[-1])
    assert result.student is trainer.student
    assert result.best_feasible is not result.student


def test_without_a_feasible_iterate_the_least_violation_is_kept():
    result = trainer_for(at_least(0.9), lr=0.05).fit(one_each(), epochs=10, trace_every=1)
    least = result.trace["violation_first"].min()
    assert result.best_feasible is None
    assert 0.9 - result.most_feasible.p()[0] == pytest.approx(least, abs=1e-12)


def test_a_reading_that_is_no_number_never_counts_as_feasible():
    student, keeper = FreeLogits(), Keeper()
    keeper.see(student, point(reading(0.9), reading(math.nan, name="b"), prices=[0.0, 0.0]))
    keeper.see(student, point(reading(0.9), prices=[0.0], loss=math.nan))
    assert keeper.best_feasible(student) is None
    keeper.see(student, point(reading(0.9), prices=[0.0]))
    assert keeper.best_feasible(student) is not None
