"""Ends that are easy to misread: dependent rows, curves of minima, plateaus, wells whose bottom is rounding."""

from __future__ import annotations

import math

import pytest
import torch

from solvers import minimize
from tests.support.curves import square, t


def _circle_at_its_top(x):
    return (x[0] - 1) ** 2 + (x[1] - 10) ** 2 - 1


def _dependent_rows(x):
    return torch.stack([x[0] - 1 - x[3] ** 2 + x[1] ** 2, x[0] ** 2 + x[1] ** 2 - 1 - x[4] ** 2])


def _vanishing_row(x):
    return x[0] ** 2 + (x[0] - 2 * x[1]) ** 2 + (x[1] - 3 * x[2]) ** 2 + (x[2] - 4 * x[3]) ** 2 - x[4]


def _steep_and_flat(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + x[2] ** 2 + x[3] ** 2


def _narrow_well(x):
    return 1 - torch.exp(-50 * square(x - 1))


ENDS = {
    "a maximum along a circle, at a variable without curvature": (
        lambda x: (x[0] - 1) ** 2, t(10.0, 10.0), _circle_at_its_top, (0.0, None), 0.0,
    ),
    "a curve of minima where rows depend on each other": (
        lambda x: square(x[:3]), t(1.0, 1.0, 1.0, 0.0, 0.0), _dependent_rows, None, 1.0,
    ),
    "a row that vanishes with its gradient, and a multiplier of 0": (
        lambda x: x[4], torch.ones(5).double(), _vanishing_row, (t(*[-math.inf] * 4, 0.0), None), 0.0,
    ),
    "variables 1e10 times steeper than others": (_steep_and_flat, t(-1.2, 1.0, 1e10, 1e10), None, None, 0.0),
    "a well whose bottom is rounding": (_narrow_well, t(1.5), None, None, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_minima_are_reached_and_called_so(name):
    objective, x0, h, bounds, least = ENDS[name]
    s = minimize(objective, x0, equality=h, bounds=bounds)
    assert s.status == "converged", s.message
    assert s.objective == pytest.approx(least, abs=1e-7)
    assert s.residuals.primal <= 1e-6


def test_a_plateau_is_left_for_the_valley():
    """Newton's first step goes to where exp(-b) is next to nothing, and f flat in b."""
    times = torch.arange(8.0, 44.0, 2.0).double()
    wanted = 0.42 + 0.07 * torch.exp(-1.3 * (times - 8))

    def misfit(x):
        return square(wanted - x[0] - (0.49 - x[0]) * torch.exp(-x[1] * (times - 8)))

    s = minimize(misfit, t(0.42, 5.0), bounds=(t(0.4, -4.0), None))
    assert s.status == "converged", s.message
    assert s.x.tolist() == pytest.approx([0.42, 1.3], abs=1e-3)


def test_every_point_that_functions_are_asked_at_is_counted():
    seen = set()

    def objective(x):
        seen.add(tuple(x.tolist()))
        return square(x**2 - t(1.0, 2.0))

    s = minimize(objective, t(2.0, 2.0), inequality=lambda x: x.sum() - 2)
    assert s.status == "converged", s.message
    assert len(seen) <= s.evaluations
