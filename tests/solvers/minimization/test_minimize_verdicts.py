"""Verdicts of the minimizer on problems made to mislead: false minima, missing multipliers, conflicts, kinks, units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvers import minimize
from solvers.errors import InvalidInput
from tests.support.curves import square, t

NO_MULTIPLIER = {
    "a square": (lambda x: x.sum(), t(1.0), lambda x: x**2, None, [0.0]),
    "a square, from outside": (lambda x: x.sum(), t(-3.0), lambda x: x**2, None, [0.0]),
    "a cube": (lambda x: x.sum(), t(2.0), lambda x: -(x**3), None, [0.0]),
    "a cusp": (lambda x: -x[0], t(0.5, 0.2), lambda x: torch.stack([x[1] - (1 - x[0]) ** 3, -x[1]]), None, [1.0, 0.0]),
    "discs that touch": (
        lambda x: x[1],
        t(0.5, 0.5),
        lambda x: torch.stack([square(x - t(1.0, 0.0)) - 1, square(x + t(1.0, 0.0)) - 1]),
        None,
        [0.0, 0.0],
    ),
    "Hock and Schittkowski 13": (
        lambda x: (x[0] - 2) ** 2 + x[1] ** 2, t(-2.0, -2.0), lambda x: x[1] - (1 - x[0]) ** 3, (0.0, None), [1.0, 0.0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_MULTIPLIER)
def test_feasible_points_without_multiplier_are_found_and_named(name):
    objective, x0, g, bounds, x = NO_MULTIPLIER[name]
    s = minimize(objective, x0, inequality=g, bounds=bounds)
    assert s.status == "no_multiplier", s.message
    assert s.x.tolist() == pytest.approx(x, abs=1e-4)
    assert "vanish or cancel" in s.message


def test_a_large_multiplier_is_no_missing_one():
    s = minimize(lambda x: x.sum(), t(1.0), inequality=lambda x: x**2 - 1e-6)
    assert s.status == "converged", s.message
    assert float(s.x) == pytest.approx(-1e-3, abs=1e-8)
    assert float(s.multipliers) == pytest.approx(500, rel=1e-4)


CONFLICTS = {
    "two half-lines": (t(0.3), lambda x: torch.cat([1 - x, x + 1]), None, None, "affine"),
    "units do not matter": (t(0.3), lambda x: torch.cat([1000 * (1 - x), x + 1]), None, None, "affine"),
    "parallel equalities": (t(0.0, 0.0), None, lambda x: torch.stack([x.sum() - 1, x.sum() - 2]), None, "affine"),
    "a constant": (t(1.0, 2.0), lambda x: t(0.5, -1.0), None, None, "affine"),
    "bounds": (t(0.0), lambda x: 2 - x, None, (-1.0, 1.0), "affine"),
    "discs apart": (
        t(0.5, 0.3), lambda x: torch.stack([square(x - 2) - 1, square(x + 2) - 1]), None, None, "convex",
    ),
    "a wave above zero": (t(0.5), lambda x: torch.sin(3 * x) + 1.5, None, None, "this is local"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFLICTS)
def test_conflicts_carry_a_proof_and_say_how_far_it_reaches(name):
    x0, g, h, bounds, scope = CONFLICTS[name]
    s = minimize(square, x0, inequality=g, equality=h, bounds=bounds)
    assert s.status == "infeasible", s.message
    assert scope in s.message
    x = s.x.clone().requires_grad_()
    rows = torch.cat([row(x).reshape(-1) for row in (g, h) if row is not None])
    assert float(s.farkas.abs().sum()) == pytest.approx(1)
    assert (s.farkas[: 0 if g is None else len(g(x))] >= 0).all()
    weighed = (s.farkas * rows).sum()
    assert weighed > 1e-6
    if bounds is None and weighed.requires_grad:  # no direction makes the weighed sum smaller
        assert float(torch.autograd.grad(weighed, x)[0].abs().max()) <= 1e-5 * float(rows.detach().abs().max())


def test_a_feasible_point_elsewhere_is_found_before_anything_is_called_infeasible():
    """Feasible is only where x^2 is near 1; at 0 the gradient of the row vanishes."""
    s = minimize(square, t(0.0), inequality=lambda x: (x**2 - 1) ** 2 - 0.5)
    assert s.status == "converged", s.message
    assert s.objective == pytest.approx(1 - 0.5**0.5, abs=1e-6)


FALSE_MINIMA = {
    "inflection": (lambda x: (x**3).sum(), t(0.0), None, (-1.0, 1.0), -1.0),
    "inflection, a row ends it": (lambda x: (x**3).sum(), t(0.0), lambda x: -1 - x, None, -1.0),
    "fourth order": (lambda x: -(x**4).sum(), t(0.0), None, (-1.0, 1.0), -1.0),
    "corner that is a maximum": (lambda x: -square(x), t(0.0, 0.0), None, (0.0, 1.0), -2.0),
    "saddle": (lambda x: x[0] ** 2 - x[1] ** 2 + 0.25 * x[1] ** 4, t(0.0, 0.0), None, None, -1.0),
    "gradients of f and row vanish": (square, t(0.0), lambda x: 1 - x**2, None, 1.0),
    "complementarity, from its symmetric point": (
        lambda x: square(x - 1), t(0.5, 0.5), lambda x: torch.stack([-x[0], -x[1], x[0] * x[1]]), None, 1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FALSE_MINIMA)
def test_stationary_points_that_are_no_minima_are_left(name):
    objective, x0, g, bounds, least = FALSE_MINIMA[name]
    s = minimize(objective, x0, inequality=g, bounds=bounds)
    assert s.status == "converged", s.message
    assert s.objective == pytest.approx(least, abs=1e-6)


def test_a_penalty_too_weak_is_not_an_unbounded_objective():
    s = minimize(lambda x: (x**3).sum(), t(0.5), inequality=lambda x: -1 - x)
    assert (s.status, float(s.x), float(s.multipliers)) == ("converged", pytest.approx(-1), pytest.approx(3))
    s = minimize(lambda x: -x[0], t(0.0, 0.0), inequality=lambda x: x[0] - x[1])
    assert s.status == "unbounded", s.message


def test_numbers_that_are_not_finite_turn_the_search_back():
    s = minimize(lambda x: x.sum() - x.log().sum(), t(5.0, 0.1))
    assert s.status == "converged"
    assert s.x.tolist() == pytest.approx([1.0, 1.0])
    s = minimize(lambda x: -x.sqrt().sum(), t(0.5, 0.1), inequality=lambda x: x.sum() - 1)
    assert s.status == "converged"
    assert s.x.tolist() == pytest.approx([0.5, 0.5])


def test_a_kink_is_not_called_converged():
    s = minimize(lambda x: x.abs().sum() + 0.1 * square(x - 1), t(5.0, -3.0))
    assert s.status == "budget_spent"
    assert "a kink" in s.message
    assert "t >= u" in s.next_move
    assert s.x.tolist() == pytest.approx([0.0, 0.0], abs=1e-3)


def test_rows_that_repeat_or_never_bind_do_no_harm():
    s = minimize(square, t(0.0, 0.0), inequality=lambda x: torch.stack([1 - x.sum(), 1 - x.sum(), 2 - 2 * x.sum()]))
    assert s.status == "converged"
    assert float(s.multipliers @ t(1.0, 1.0, 2.0)) == pytest.approx(1, rel=1e-6)
    s = minimize(lambda x: square(x - 1), t(3.0, 2.0), inequality=lambda x: torch.stack([0 * x.sum() - 1, x[0] - 0.5]))
    assert s.status == "converged"
    assert s.multipliers.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_sizes_of_variables_and_objective(size):
    """Minimise (a million times smaller or larger) |x - c|^2 subject to sum x <= |c|, with c = (size, size)."""
    s = minimize(lambda x: ((x / size - 1) ** 2).sum() / size, t(0.0, 0.3 * size), inequality=lambda x: x.sum() - size)
    assert s.status == "converged", s.message
    assert (s.x / size).tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    assert float(s.multipliers) == pytest.approx(1 / size**2, rel=1e-6)


def test_a_start_where_gradients_are_huge_loosens_nothing():
    s = minimize(lambda x: (torch.exp(x) - x).sum(), t(20.0))
    assert s.status == "converged"
    assert float(s.x) == pytest.approx(0, abs=1e-6)
    s = minimize(lambda x: x.sum(), t(20.0), inequality=lambda x: torch.exp(-x) - 1)
    assert s.status == "converged"
    assert float(s.multipliers) == pytest.approx(1, rel=1e-5)


def test_functions_that_take_only_float32():
    A = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    s = minimize(lambda x: ((A @ x - 1) ** 2).sum(), torch.zeros(2), inequality=lambda x: x.sum() - 1)
    assert s.status == "converged", s.message
    assert s.x.dtype == torch.float32
    assert s.x.tolist() == pytest.approx([0.4, 0.6], abs=1e-4)
    assert float(s.multipliers) == pytest.approx(0.8, rel=1e-3)


def test_functions_that_torch_differentiates_only_once():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x**2).sum()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return 2 * grad * ctx.saved_tensors[0]

    s = minimize(Once.apply, t(3.0, 1.0, 2.0), inequality=lambda x: torch.stack([1 - x[0], 2 - x[1], x[2] - 5, -x[2]]))
    assert s.status == "converged", s.message
    assert "differences of gradients" in s.message
    assert s.x.tolist() == pytest.approx([1.0, 2.0, 0.0], abs=1e-6)
    assert s.multipliers.tolist() == pytest.approx([2.0, 4.0, 0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"multipliers": t(1.0, 1.0)}, "`multipliers` has 2 numbers; wanted 1, one for each row"),
        ({"multipliers": t(-1.0)}, r"`multipliers` holds \[-1.0\]; wanted finite numbers"),
        ({"equality_multipliers": t(np.nan)}, r"`equality_multipliers` holds \[nan\]"),
        ({"penalty": 0.0}, "`penalty` is 0.0; wanted a finite number above 0"),
    ],
)
def test_starts_that_do_not_fit_are_named(given, message):
    with pytest.raises(InvalidInput, match=message):
        minimize(square, t(1.0), inequality=lambda x: 1 - x, equality=lambda x: x - 1, **given)


def test_curvature_that_is_not_finite_ends_no_solve():
    """|x|^1.5 bends without limit at 0, where torch says NaN."""
    s = minimize(lambda x: (x.abs() ** 1.5).sum() + 0.1 * x.sum(), t(1.0, 2.0), bounds=(0.0, 3.0))
    assert s.status == "converged"
    assert s.x.tolist() == [0.0, 0.0]
    rows = lambda x: 1 + 0.1 * torch.cos(16 * torch.atan2(x[0], x[1])) - x.square().sum()  # noqa: E731
    given = {"inequality": lambda x: torch.stack([rows(x), (x - 0.5).square().sum() - 0.5]), "bounds": (0.0, 3.2)}
    for start in (t(0.0, 0.0), t(2.0, 0.5)):  # Tanaka's problem; the angle has no derivative at the origin
        s = minimize(lambda x: x[1], start + 1e-9, **given)
        assert s.status in ("converged", "infeasible", "budget_spent")
