"""What every sweep decides alike: targets, budget, gaps, which fall multipliers explain, which point is better."""

from __future__ import annotations

import math

import numpy as np
import pytest

from solvers.errors import InvalidInput
from solvers.pareto import (
    BudgetSpent,
    RunBudget,
    Standing,
    explain_fall,
    find_balancing_weight,
    is_better,
    lies_inside,
    list_largest_gaps,
    measure_extrapolation,
    spread_targets,
)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.3), (-1e9, 1e-9), (1 / 3, 2 / 3)])
def test_targets_are_even_and_keep_both_ends_to_the_last_bit(low, high):
    targets = spread_targets(low, high, 7)
    assert (targets[0], targets[-1]) == (low, high)
    assert np.diff(targets) == pytest.approx((high - low) / 6)


def test_a_budget_says_when_it_is_spent():
    budget = RunBudget(2)
    budget.spend()
    budget.spend()
    assert budget.left == 0
    with pytest.raises(BudgetSpent):
        budget.spend()
    assert budget.spent == 2


def test_an_extrapolation_is_a_part_of_the_last_step():
    assert measure_extrapolation(3.0, 2.0, 1.5) == 0.5
    assert measure_extrapolation(2.0, 2.0, 1.0) == math.inf


@pytest.mark.parametrize("curve", [lambda e: 1 - np.sqrt(e), lambda e: 1 - e**2])
def test_multipliers_of_one_branch_explain_its_fall_and_no_other(curve):
    """Between two points of a branch that bends one way the secant lies between the multipliers at both."""
    e = np.array([0.3, 0.5])
    multipliers = tuple(float(m) for m in -(curve(e + 1e-7) - curve(e - 1e-7)) / 2e-7)
    fall = float(curve(e[0]) - curve(e[1]))
    low, high = explain_fall(0.2, multipliers, relative=0.01, absolute=0.0)
    assert low < fall < high
    assert not low < fall + 0.1 < high
    assert not low < fall - 0.1 < high


def test_what_is_granted_widens_what_multipliers_explain():
    assert explain_fall(2.0, (3.0, 1.0), relative=0.5, absolute=0.25) == (0.75, 9.25)
    assert explain_fall(1.0, (1.0, math.inf), relative=0.0, absolute=0.0) == (1.0, math.inf)


def test_feasible_points_come_first_then_the_lower_objective():
    best, worse = Standing(1.0, 0.0, True), Standing(2.0, 0.0, True)
    missed, missed_by_more = Standing(0.0, 0.1, False), Standing(0.0, 0.2, False)
    order = [best, worse, missed, missed_by_more]
    for i, new in enumerate(order):
        for j, old in enumerate(order):
            assert is_better(new, old) == (i < j)
    unsure = Standing(1.0, 0.0, True, converged=False)
    assert is_better(best, unsure)
    assert not is_better(unsure, best)
    assert not is_better(best, worse, slack=1.0)
    assert not is_better(worse, best, slack=1.0)


def test_at_the_balancing_weight_both_ends_are_worth_the_same():
    left, right = (0.2, 0.9), (0.7, 0.1)
    weight = find_balancing_weight(left, right)
    assert left[1] + weight * left[0] == pytest.approx(right[1] + weight * right[0])


@pytest.mark.parametrize(("value", "inside"), [(0.5, True), (0.1, False), (0.11, True), (0.9, False), (2.0, False)])
def test_a_point_next_to_an_end_of_a_gap_closes_nothing(value, inside):
    assert lies_inside(value, 0.0, 1.0, 0.1) == inside
    assert lies_inside(value + 4, 4.0, 5.0, 0.1) == inside


def test_given_ranges_decide_which_gap_is_wide():
    points = [[0.0, 1.0], [0.6, 0.9], [1.0, 0.0]]
    assert list_largest_gaps(points, 9, 0.0)[0] == (1, 2)
    assert list_largest_gaps(points, 9, 0.0, (1.0, 100.0))[0] == (0, 1)
    with pytest.raises(InvalidInput, match=r"`points_N2` has shape \(3,\)"):
        list_largest_gaps([1.0, 2.0, 3.0], 1, 0.0)
