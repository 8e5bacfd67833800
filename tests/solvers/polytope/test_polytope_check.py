"""check() judges each rule, and can say no."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from solvers import InvalidInput, WeightPolytope

RULES = WeightPolytope(
    3, 0.1, 0.6, [(0, 2)], margin=0.05, linear=([[1.0, 1.0, 0.0]], [0.85], [[0.0, 1.0, -2.0]], [0.0])
)
GOOD = [0.4, 0.4, 0.2]
WRONG = {
    "lower=0.1": [0.55, 0.4, 0.05],
    "upper=0.6": [0.7, 0.2, 0.1],
    "weights sum to 1": [0.4, 0.4, 0.2 + 1e-12],
    "teacher 0 >= teacher 2 by margin 0.05": [0.24, 0.56, 0.2],
    "linear row 0 (A w <= b)": [0.5, 0.4, 0.1],
    "linear row 0 (C w = d)": [0.4, 0.39, 0.21],
}


def test_good_weights_hold():
    found = RULES.check(GOOD)
    assert found.holds()
    assert found.violations == ()


@pytest.mark.parametrize("rule", WRONG)
def test_each_rule_can_say_no(rule):
    found = RULES.check([GOOD, WRONG[rule]])
    assert not found.holds()
    broken = next(violation for violation in found.violations if violation.name == rule)
    assert broken.amount > 0
    assert broken.rows == 1
    assert broken.worst_row == (1,)


def test_nan_holds_nothing():
    for w in ([math.nan] * 3, [0.4, math.nan, 0.2]):
        found = RULES.check([GOOD, w])
        assert not found.holds()
        assert not found.holds(tolerance=math.inf)
        assert math.isnan(found.rules[0].amount)


def test_nan_fails_on_rows_without_orders():
    found = WeightPolytope(2, orderings=[(0, 1)]).check([[math.nan, 0.5]], critical=[False])
    assert len(found.violations) == len(found.rules)


def test_bounds_and_orders_are_exact():
    """One ulp is a violation."""
    polytope = WeightPolytope(2, 0.1, 0.9, [(0, 1)])
    low, high = np.nextafter(0.1, 0), np.nextafter(0.9, 1)
    assert {rule.name for rule in polytope.check([high, low]).violations} == {"lower=0.1", "upper=0.9"}
    high = np.nextafter(0.5, 1)
    assert {rule.name for rule in polytope.check([0.5, high]).violations} == {"teacher 0 >= teacher 1"}
    assert polytope.check([0.5, high]).holds(tolerance=1e-12)


def test_short_types_are_judged_by_their_own_rounding():
    polytope = WeightPolytope(2, 0.4, 0.6)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert polytope.check(torch.tensor([0.6, 0.4], dtype=dtype)).holds()
        assert not polytope.check(torch.tensor([0.61, 0.39], dtype=dtype)).holds()


def test_worst_row_of_many_axes():
    w = torch.full((2, 3, 4), 0.25, dtype=torch.float64)
    w[1, 2] = torch.tensor([0.7, 0.1, 0.1, 0.1])
    found = WeightPolytope(4, upper=0.5).check(w)
    assert found.violations[0].worst_row == (1, 2)
    assert found.violations[0].amount == pytest.approx(0.2)


def test_safety_and_mask():
    polytope = WeightPolytope(2)
    w, safety = [[0.4, 0.6], [0.6, 0.4]], [[0.9, 0.1], [0.5, 0.5]]
    found = polytope.check(w, safety=safety)
    assert [(rule.name, rule.worst_row) for rule in found.violations] == [("the order of `safety`", (0,))]
    assert polytope.check(w, safety=safety, critical=[False, True]).holds()
    assert not WeightPolytope(2, orderings=[(0, 1)]).check(w, critical=[True, False]).holds()


def test_no_rows_hold():
    found = RULES.check(torch.empty(0, 3))
    assert found.holds()
    assert found.rules[0].worst_row is None


def test_table():
    lines = str(RULES.check([GOOD, WRONG["upper=0.6"]])).splitlines()
    assert lines[0].split() == ["rule", "holds", "worst", "by", "rows", "worst", "row"]
    assert "NO" in next(line for line in lines if line.startswith("upper=0.6"))
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("w", "options", "message"),
    [
        ([0.5, 0.5], {}, r"`w` must have 3 weights in its last axis, one a teacher; found shape \(2,\)"),
        (torch.tensor([1, 0, 0]), {}, "floating dtype; found torch.int64"),
        ("weights", {}, "`w` must hold real numbers"),
        (GOOD, {"safety": [1, 2, 3]}, "polytope has its own orderings"),
        ([GOOD], {"critical": [True, False]}, r"`critical` has shape \(2,\); wanted \(1,\)"),
    ],
)
def test_refused(w, options, message):
    with pytest.raises(InvalidInput, match=message):
        RULES.check(w, **options)
