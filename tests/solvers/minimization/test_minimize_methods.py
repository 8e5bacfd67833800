"""``minimize(method=...)``: the rules for multipliers on problems that stand still, against answers by hand."""

from __future__ import annotations

import pytest
import torch

from solvers import AugmentedLagrangian, FixedPenalty, InvalidInput, PIGain, PlainAscent, minimize
from tests.support.curves import t as vec

PROBLEMS = {
    "line": (lambda x: (x**2).sum(), vec(3, -1), {"equality": lambda x: x.sum() - 1}, vec(0.5, 0.5), -1.0),
    "circle": (lambda x: x.sum(), vec(1, 1), {"equality": lambda x: (x**2).sum() - 2}, vec(-1, -1), 0.5),
    "bilinear": (lambda x: x.sum(), vec(0), {"inequality": lambda x: 1 - x}, vec(1), 1.0),
    "concave": (
        lambda x: -((x + 1) ** 2).sum(),
        vec(0.5),
        {"inequality": lambda x: x - 0.3, "bounds": (0.0, 1.0)},
        vec(0.3),
        2.6,
    ),
}
# no penalty convexifies for these two, and plain ascent circles on a bilinear problem
CANNOT = {("concave", "PlainAscent"), ("bilinear", "PlainAscent")}


@pytest.mark.parametrize("method", [AugmentedLagrangian(), PIGain(), PlainAscent()])
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_rule_finds_what_it_can_and_says_so_where_it_cannot(name, method):
    f, x0, rows, x, multiplier = PROBLEMS[name]
    can = (name, type(method).__name__) not in CANNOT
    s = minimize(f, x0, method=method, steps=5000 if can else 200, **rows)
    if not can:
        assert s.status == "budget_spent"
        return
    assert s.status == "converged"
    assert s.residuals.holds(1e-3)
    assert (s.x - x).abs().max() < 5e-4
    assert float(torch.cat([s.multipliers, s.equality_multipliers])) == pytest.approx(multiplier, rel=2e-3)


def test_any_optimizer_will_do_and_a_start_from_the_answer_stays_there():
    f, _, rows, x, multiplier = PROBLEMS["line"]
    s = minimize(
        f,
        x,
        equality_multipliers=vec(multiplier),
        method=PIGain(),
        optimizer=lambda p: torch.optim.SGD(p, 0.05),
        **rows,
    )
    assert (s.status, len(s.history)) == ("converged", 1)


def test_rows_that_conflict_are_shown_to():
    rows = lambda x: torch.cat([1 - x, x + 1])  # noqa: E731
    s = minimize(lambda x: (x**2).sum(), vec(0), inequality=rows, method=AugmentedLagrangian(), steps=50)
    assert s.status == "infeasible"
    assert s.farkas.tolist() == pytest.approx([0.5, 0.5])


def test_values_that_are_no_numbers_end_it():
    s = minimize(lambda x: -(x**4).sum(), vec(3.0), method=PlainAscent(), steps=500)
    assert s.status == "diverged"
    assert "not finite" in s.message


def test_an_optimizer_without_a_method_is_refused():
    with pytest.raises(InvalidInput, match="`optimizer` was given without `method`"):
        minimize(lambda x: x.sum(), vec(0), optimizer=lambda p: torch.optim.SGD(p, 0.1))


def test_a_fixed_penalty_promises_nothing():
    s = minimize(lambda x: (x**2).sum(), vec(0), inequality=lambda x: 1 - x, method=FixedPenalty(0.5), steps=300)
    assert s.status == "budget_spent"
    assert s.multipliers.tolist() == pytest.approx([0.5])
