"""WeightPolytope: what it accepts, what it refuses and in which words."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeResult

from solvers import InfeasiblePolytope, InvalidInput, LinearRows, SolverFailure, WeightPolytope, project
from solvers.polytope import bounds_within, nearest_bounds


def test_equal_content_is_equal_value():
    one = WeightPolytope(3, 0.1, 0.6, [(1, 2), (0, 2), (0, 2)], linear=([[1, 0, 0]], [0.5]))
    other = WeightPolytope(
        3, [0.1] * 3, np.full(3, 0.6), ((0, 2), (1, 2)), linear={"A": np.array([[1, 0, 0]]), "b": 0.5}
    )
    assert one == other
    assert hash(one) == hash(other)
    assert one != WeightPolytope(3, 0.1, 0.6, [(0, 2)])
    assert copy.deepcopy(one) == one  # what a worker process is given


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        WeightPolytope(3).margin = 0.1


def test_one_teacher_has_all_the_weight():
    assert WeightPolytope(1).check([1.0]).holds()


def test_linear_rows_in_every_form():
    A, b, C, d = [[1.0, 0, 0]], [0.5], [[0, 1.0, -1.0]], [0.0]
    rows = LinearRows(A, b, C, d)
    for form in (rows, (A, b, C, d), {"A": A, "b": b, "C": C, "d": d}):
        assert WeightPolytope(3, linear=form).linear == rows
    assert not LinearRows()
    assert WeightPolytope(3, linear=(A, b)).linear == LinearRows(A, b)


@pytest.mark.parametrize(
    ("orderings", "tiers"),
    [
        ([], (0, 0, 0, 0)),
        ([(2, 0), (0, 1), (1, 3)], (2, 1, 3, 0)),
        ([(0, 2), (0, 3), (1, 2), (1, 3)], (1, 1, 0, 0)),
        ([(0, 1), (0, 2), (0, 3)], (1, 0, 0, 0)),
        ([(0, 2), (1, 2)], None),  # teacher 3 compares with nobody, 0 with 2
        ([(0, 2), (1, 2), (1, 3)], None),
    ],
)
def test_tiers(orderings, tiers):
    assert WeightPolytope(4, orderings=orderings).tiers == tiers


@pytest.mark.parametrize(
    "settings",
    [
        {"lower": [0.1, 0.1, 0.0]},
        {"upper": [0.5, 0.6, 0.5]},
        {"orderings": [(0, 1)], "margin": 0.1},
        {"linear": ([[1, 0, 0]], [0.5])},
    ],
)
def test_no_tiers_beside_other_rules(settings):
    assert WeightPolytope(3, **settings).tiers is None


def test_a_margin_without_orderings_says_nothing():
    assert WeightPolytope(3, margin=0.1).tiers == (0, 0, 0)


def test_a_circle_of_orderings_may_mean_ties():
    """Everyone on a circle weighs the same, and what holds for one of them holds for all."""
    pairs = [(0, 2), (2, 0), (2, 3), (1, 0)]
    polytope = WeightPolytope(4, [0.0, 0.0, 0.1, 0.0], [1.0, 0.9, 0.8, 0.5], pairs, ties=True)
    assert polytope.tied == ((0, 2),)
    plain = WeightPolytope(4, [0.1, 0.0, 0.1, 0.0], [0.8, 0.9, 0.8, 0.5], [(0, 3), (1, 0), (1, 2), (2, 3)])
    assert polytope.untied == plain
    assert polytope.check([0.25, 0.4, 0.25, 0.1]).holds()
    assert not polytope.check([0.25, 0.4, 0.24, 0.11]).holds()
    assert WeightPolytope(3, orderings=[(0, 1)], ties=True).tied == ()


def test_ties_beside_linear_rows_become_rows():
    polytope = WeightPolytope(3, 0.0, 1.0, [(0, 1), (1, 0)], linear=([[1.0, 0.0, 0.0]], [0.3]), ties=True)
    assert polytope.untied.linear.C == ((1.0, -1.0, 0.0),)
    assert polytope.untied.linear.d == (0.0,)


def test_a_circle_with_a_margin_leaves_no_weights():
    with pytest.raises(InfeasiblePolytope, match=r"teacher 0 >= teacher 1 by margin 0\.1; teacher 1 >= teacher 0 by"):
        WeightPolytope(3, orderings=[(0, 1), (1, 0)], margin=0.1, ties=True)


def test_ordered_by_scores():
    ordered = WeightPolytope(4, 0.05, 0.6).ordered_by([0.3, 0.9, 0.3, 0.1])
    assert ordered.orderings == ((0, 3), (1, 0), (1, 2), (2, 3))
    assert ordered.without_orderings() == WeightPolytope(4, 0.05, 0.6)


REFUSED = {
    "n_teachers": ({"n_teachers": 0}, "`n_teachers` must be a whole number of at least 1; found 0"),
    "n_teachers real": ({"n_teachers": 2.0}, "found 2.0"),
    "n_teachers bool": ({"n_teachers": True}, "found True"),
    "index": ({"orderings": [(0, 3)]}, r"names teacher 3 in \(0, 3\); there are 3 teachers, 0 to 2"),
    "negative index": ({"orderings": [(-1, 2)]}, r"names teacher -1 in \(-1, 2\)"),
    "self": ({"orderings": [(1, 1)]}, r"compares teacher 1 with itself"),
    "no pair": ({"orderings": [(0, 1, 2)]}, r"pairs \(i, j\) of teacher numbers; found \(0, 1, 2\)"),
    "no list": ({"orderings": 3}, r"a list of pairs \(i, j\).*found 3"),
    "cycle": ({"orderings": [(0, 2), (2, 1), (1, 0)]}, "go round in a circle: 0 >= 2 >= 1 >= 0"),
    "nan": ({"lower": float("nan")}, "`lower` must be finite; found nan"),
    "inf": ({"upper": [1.0, float("inf"), 1.0]}, r"`upper` must be finite; found inf at \(1,\)"),
    "text": ({"upper": "much"}, "`upper` must hold real numbers; found 'much'"),
    "crossed": ({"lower": [0, 0.6, 0], "upper": 0.5}, "lower=0.6 is above upper=0.5 on teacher 1"),
    "negative lower": ({"lower": [0, 0, -0.1]}, "lower=-0.1 on teacher 2 is negative"),
    "negative margin": ({"margin": -0.1}, "`margin` must be one number of at least 0; found -0.1"),
    "bound shape": ({"lower": [0.1, 0.2]}, r"one for each of the 3 teachers; found shape \(2,\)"),
    "row length": ({"linear": ([[1, 1]], [1])}, "row 0 of `A` has 2 coefficients; wanted 3"),
    "rhs length": ({"linear": ([[1, 1, 0]], [1, 2])}, r"found \(1, 3\) and \(2,\)"),
    "half a pair": ({"linear": {"A": [[1, 1, 0]]}}, "`A` was given without `b`"),
    "other half": ({"linear": (None, [0.5])}, "`b` was given without `A`"),
    "unknown key": ({"linear": {"E": 1}}, "unknown key E; wanted A, b, C, d"),
    "no rows": ({"linear": 3}, "found int"),
    "three parts": (
        {"linear": ([[1, 1, 0]], [1], [[1, 1, 1]])},
        r"`linear` must be None, LinearRows, \(A, b\).*found tuple",
    ),
    "deep rows": ({"linear": (np.ones((1, 1, 3)), [1])}, r"`A` must have shape \(M, n_teachers\).*found \(1, 1, 3\)"),
    "name twice": ({"names": ["a", "a", "b"]}, "`names` are a, a, b; wanted 3 different ones, one for each teacher"),
    "few names": ({"names": ["a", "b"]}, "`names` are a, b; wanted 3 different ones"),
    "an array for a list": (
        {"orderings": np.array(3)},
        r"`orderings` must be a list of pairs \(i, j\).*found array\(3\)",
    ),
    "ties": ({"ties": "yes"}, "`ties` is 'yes'; wanted True or False"),
    "too many": ({"n_teachers": 10**12}, "`n_teachers` is 1,000,000,000,000; wanted at most .* fill a gigabyte"),
    "nan row": ({"linear": ([[1, float("nan"), 0]], [1])}, r"`A` must be finite; found nan at \(0, 1\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    settings, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        WeightPolytope(**{"n_teachers": 3, **settings})


@pytest.mark.parametrize("K", [1, 2, 3, 7, 10, 49, 98])
def test_rounded_shares_are_feasible(K):
    """K * (1/K) is not always 1 in floats; the user meant the uniform vector."""
    for settings in ({"upper": 1 / K}, {"lower": 1 / K}, {"lower": 1 / K, "upper": 1 / K}):
        polytope = WeightPolytope(K, **settings)
        assert polytope.check(np.full(K, 1 / K)).holds()


INFEASIBLE = {
    "upper": (
        {"upper": 0.3},
        "upper=0.3 allows at most 0.9 in total.*Raise `upper` to at least 0.3334, or add a teacher",
    ),
    "lower": (
        {"lower": 0.4},
        "lower=0.4 takes at least 1.2 in total.*Lower `lower` to at most 0.3333, or drop a teacher",
    ),
    "per teacher": (
        {"upper": [0.1, 0.2, 0.3]},
        "weights must sum to 1; upper=0.1 on teacher 0; upper=0.2 on teacher 1; upper=0.3 on teacher 2.*raise `upper`",
    ),
    "ordering": (
        {"lower": [0, 0, 0.3], "upper": [0.2, 1, 1], "orderings": [(0, 2)]},
        r"conflict: upper=0.2 on teacher 0; lower=0.3 on teacher 2; teacher 0 >= teacher 2\. .*"
        r"raise `upper` on teacher 0 to at least 0.3\.",
    ),
    "margin": (
        {"lower": 0.3, "orderings": [(0, 1), (1, 2)], "margin": 0.1},
        "teacher 0 >= teacher 1 by margin 0.1; teacher 1 >= teacher 2 by margin 0.1.*lower `lower` to at most 0.2333",
    ),
    "linear": (
        {"linear": ([[1, 1, 0]], [0.2], [[0, 0, 1]], [0.5])},
        r"weights must sum to 1; linear row 0 \(A w <= b\); linear row 0 \(C w = d\)",
    ),
    "negative weight": (
        {"linear": ([[1, 0, 0]], [-0.2])},
        r"conflict: lower=0 on teacher 0; linear row 0 \(A w <= b\)\.",
    ),
}


@pytest.mark.parametrize("case", INFEASIBLE)
def test_infeasible_names_the_conflict(case):
    settings, message = INFEASIBLE[case]
    with pytest.raises(InfeasiblePolytope, match=message):
        WeightPolytope(3, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"upper": 0.3334},
        {"lower": 0.3333},
        {"lower": [0, 0, 0.3], "upper": [0.3, 1, 1], "orderings": [(0, 2)]},
        {"lower": 0.2333, "orderings": [(0, 1), (1, 2)], "margin": 0.1},
    ],
)
def test_the_suggested_change_makes_room(settings):
    """The settings of the infeasible cases, changed as their messages say."""
    polytope = WeightPolytope(3, **settings)
    assert polytope.check(project([0.5, 0.2, 0.3], polytope)).holds()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_bounds_within_a_dtype(dtype):
    polytope = WeightPolytope(4, [0.0, 0.1, 0.05, 1 / 3], [0.6, 0.1, 1.0, 0.7])
    low_K, high_K = bounds_within(polytope, dtype)
    near_K = nearest_bounds(polytope, dtype)[0]
    apart_K = torch.tensor([True, False, True, True])
    assert (low_K.double() >= torch.tensor(polytope.lower, dtype=torch.float64))[apart_K].all()
    assert (high_K.double() <= torch.tensor(polytope.upper, dtype=torch.float64))[apart_K].all()
    assert low_K[1] == high_K[1] == near_K[1]  # one value, which few types can hold
    assert (low_K <= high_K).all()


def test_a_solver_that_cannot_tell_is_named(monkeypatch):
    from solvers.polytope import _polytope_feasibility as feasibility

    ending = OptimizeResult(status=4, message="Numerical difficulties encountered.")
    monkeypatch.setattr(feasibility, "_find_any_weights", lambda rules: ending)
    with pytest.raises(
        SolverFailure, match=r"could not tell whether the rules leave room: Numerical.*common scale near 1"
    ):
        WeightPolytope(3, linear=([[1e9, 1, 0]], [1]))
