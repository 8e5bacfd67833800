"""The frontier benchmark measures what it says, and its judge can say no."""

from __future__ import annotations

import numpy as np

from benchmarks.frontier import _cost, by_slsqp, fronts, one_by_one, traced


def test_all_of_them_solve_a_small_frontier_and_warm_starts_cost_less():
    front = fronts()[4]
    ours, levels = traced(front, 4, 1)
    cold, peer = one_by_one(front, levels), by_slsqp(front, levels, warm=True)
    assert ours.solved == cold.solved == peer.solved == 4
    assert ours.evaluations < cold.evaluations


def test_a_wrong_objective_and_a_violated_row_count_as_not_solved():
    front, e, bump = fronts()[1], np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.1, 0.0])
    assert _cost(front, e, front.exact(e), e, 0, 0.0).solved == 3
    assert _cost(front, e, front.exact(e) + bump, e, 0, 0.0).solved == 2
    assert _cost(front, e, front.exact(e), e + bump, 0, 0.0).solved == 2
    assert _cost(front, e, [1.0, np.nan, 0.0], e, 0, 0.0).solved == 2
