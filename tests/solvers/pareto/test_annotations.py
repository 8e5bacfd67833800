"""Gaps along a frontier, and multipliers against their neighbors: exact ones pass, wrong ones do not."""

from __future__ import annotations

import numpy as np
import pytest

from solvers.errors import InvalidInput
from solvers.pareto import contradicts_neighbors, list_largest_gaps


def binh_and_korn(e):
    return np.where(e <= 72, 2 * (5 - np.sqrt(e / 8)) ** 2, 4 + (5 - np.sqrt((e - 36).clip(0) / 4)) ** 2)


def binh_and_korn_multiplier(e):
    first, second = np.sqrt(e / 8), np.sqrt((e - 36).clip(1e-9) / 4)
    return np.where(e <= 72, (5 - first) / (4 * first) * 1.0, (5 - second) / (4 * second))


def fonseca(e):
    return 1 - np.exp(-((2 - np.sqrt(-np.log(1 - e))) ** 2))


FRONTS = {
    # where, objective, minus its derivative
    "ZDT1": (np.linspace(0, 1, 21)[1:], lambda e: 1 - np.sqrt(e), lambda e: 0.5 / np.sqrt(e)),
    "ZDT2": (np.linspace(0, 1, 21), lambda e: 1 - e**2, lambda e: 2 * e),
    "Binh and Korn": (np.linspace(0, 136, 21)[1:], binh_and_korn, binh_and_korn_multiplier),
    "Schaffer": (np.linspace(0, 4, 21)[1:], lambda e: (2 - np.sqrt(e)) ** 2, lambda e: 2 / np.sqrt(e) - 1),
    "Fonseca and Fleming": (
        np.linspace(0, 1 - np.exp(-4), 21)[1:-1], fonseca, lambda e: (fonseca(e - 1e-7) - fonseca(e + 1e-7)) / 2e-7,
    ),
    "a line": (np.linspace(0, 1, 21), lambda e: 2 - 3 * e, lambda e: 3 + 0 * e),
    "two lines": (np.linspace(0, 1, 20), lambda e: np.maximum(1 - 3 * e, 0.2 - 0.2 * e), lambda e: np.where(
        1 - 3 * e > 0.2 - 0.2 * e, 3.0, 0.2)),
    "two lines, concave": (np.linspace(0, 1, 20), lambda e: np.minimum(1 - 0.2 * e, 1.6 - 1.6 * e), lambda e: np.where(
        1 - 0.2 * e < 1.6 - 1.6 * e, 0.2, 1.6)),
}  # fmt: skip


@pytest.mark.parametrize("name", FRONTS)
def test_exact_multipliers_pass_in_any_order_and_units(name):
    e, objective, multiplier = FRONTS[name]
    order = np.random.default_rng(0).permutation(len(e))
    for unit in (1.0, 1e6, 1e-6):
        flagged = contradicts_neighbors(e[order], unit * objective(e)[order], unit * multiplier(e)[order])
        assert not flagged.any(), e[order][flagged]


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("factor", [0.5, 0.0, -1.0, 2.0])
def test_a_wrong_multiplier_is_flagged_and_no_other(name, factor):
    e, objective, multiplier = FRONTS[name]
    for i in range(1, len(e) - 1):
        wrong = multiplier(e)
        wrong[i] *= factor
        flagged = contradicts_neighbors(e, objective(e), wrong)
        at_kink = abs(objective(e)[i - 1] - 2 * objective(e)[i] + objective(e)[i + 1]) > 0.5 * abs(
            objective(e)[i - 1] - objective(e)[i]
        )
        first_of_root = i == 1 and name not in ("ZDT2", "a line")  # the secant to a steep end says little
        if not (factor in (0.5, 2.0) and (at_kink or first_of_root)) and multiplier(e)[i] > 0.05 * multiplier(e).mean():
            assert flagged[i], (i, e[i])
        assert not np.delete(flagged, i).any()


def test_a_multiplier_that_is_wrong_at_an_end_is_flagged_where_the_front_levels_off():
    e, objective, multiplier = FRONTS["ZDT1"]
    for factor in (0.5, 0.0, -1.0, 2.0):
        wrong = multiplier(e)
        wrong[-1] *= factor
        assert contradicts_neighbors(e, objective(e), wrong).tolist() == [False] * 19 + [True]


def test_standard_errors_are_granted():
    e, objective, multiplier = FRONTS["ZDT2"]
    noise = 0.02 * np.random.default_rng(1).standard_normal(len(e))
    assert contradicts_neighbors(e, objective(e) + noise, multiplier(e)).any()
    assert not contradicts_neighbors(e, objective(e) + noise, multiplier(e), np.full(len(e), 0.02)).any()
    wrong = np.where(np.arange(len(e)) == 15, 30.0, multiplier(e))
    assert contradicts_neighbors(e, objective(e) + noise, wrong, np.full(len(e), 0.02))[15]


def test_rows_without_numbers_and_repeated_points_are_no_neighbours():
    e, objective, multiplier = FRONTS["ZDT2"]
    more = [np.insert(column, 5, value) for column, value in ((e, 0.21), (objective(e), np.nan), (multiplier(e), 9.0))]
    assert not contradicts_neighbors(*more).any()
    twice = [np.append(column, column[7]) for column in (e, objective(e), multiplier(e))]
    assert not contradicts_neighbors(*twice).any()
    twice[2][-1] = 0.0
    assert contradicts_neighbors(*twice).nonzero()[0].tolist() == [21]


def test_few_points_say_little_but_never_that_a_multiplier_is_negative():
    assert contradicts_neighbors([], [], []).tolist() == []
    assert contradicts_neighbors([1.0], [2.0], [5.0]).tolist() == [False]
    assert contradicts_neighbors([1.0, 2.0], [2.0, 1.0], [5.0, -1.0]).tolist() == [False, True]
    with pytest.raises(InvalidInput, match=r"The columns have \[1, 2, 1, 1\] rows"):
        contradicts_neighbors([1.0], [1.0, 2.0], [1.0])


def test_gaps_come_widest_first_whatever_the_order_and_the_units():
    points = np.array([[0.0, 1.0], [0.1, 0.9], [0.6, 0.5], [1.0, 0.0]])
    assert list_largest_gaps(points, 5, 0.2) == [(1, 2), (2, 3)]  # equally wide: the left one first
    assert list_largest_gaps(points, 1, 0.2) == [(1, 2)]
    assert list_largest_gaps(points[::-1] * [1e5, 1e-3], 5, 0.2) == [(2, 1), (1, 0)]
    points[3] = [1.2, 0.0]
    assert list_largest_gaps(points, 5, 0.2) == [(2, 3), (1, 2)]
    assert list_largest_gaps(points, 5, 0.75) == []
    assert list_largest_gaps([[0.0, 1.0], [np.nan, 0.5], [1.0, 0.0], [0.5, 0.5]], 2, 0.1) == [(0, 3), (3, 2)]


def test_gaps_of_nothing():
    assert list_largest_gaps(np.zeros((0, 2)), 3, 0.1) == []
    assert list_largest_gaps([[1.0, 2.0]], 3, 0.1) == []
    assert list_largest_gaps([[1.0, 2.0], [1.0, 2.0]], 3, 0.1) == []
    with pytest.raises(InvalidInput, match=r"shape \(3,\); wanted \(N, 2\)"):
        list_largest_gaps([1.0, 2.0, 3.0], 3, 0.1)
