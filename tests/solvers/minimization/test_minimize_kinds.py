"""Kinds of problems that misled minimizers: ill-conditioned fits, sizes, poles, kinks, programs, falls with an end."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from solvers import InvalidInput, minimize
from tests.support.curves import square, t

X = t(
    0, .174533, .349066, .523599, .698132, .872665, .937187, 1.047198, 1.221730, 1.396263, 1.570796, 1.745329,
)  # fmt: skip
Y = t(19.4529, 17.7149, 13.4291, 8.1080, 3.2043, .2730, 0, .8596, 6.4762, 18.8548, 40.149455, 72.676767)  # fmt: skip
WEIGHT = torch.where(X > 0, 2.0, 1.0)
POWERS = torch.stack([X ** (2 * k) for k in range(6)], dim=1)


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


class Once(torch.autograd.Function):
    """A function that torch differentiates once."""

    @staticmethod
    def forward(ctx, x, function):
        ctx.function = function
        ctx.save_for_backward(x)
        return function(x).detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            return torch.autograd.grad(ctx.function(x), x, grad)[0], None


def once(function):
    return lambda x: Once.apply(x, function)


# ---------------------------------------------------------------------------------------------------- saddles, sizes


def test_an_ill_conditioned_fit_is_walked_down_past_its_saddle():
    """PALMER2E: a saddle at .1161 has a curvature of -4e-5 beside one of 3.5e5."""
    lower = torch.tensor([-np.inf] * 6 + [0.0, -np.inf])
    s = minimize(
        lambda z: (WEIGHT * (POWERS @ z[:6] + z[7] * torch.exp(-z[6] * X**2) - Y) ** 2).sum(),
        torch.ones(8, dtype=torch.float64),
        bounds=(lower, None),
    )
    assert s.status == "converged", s.message
    assert s.objective == pytest.approx(2.11870550e-4, rel=1e-6)


def test_a_slight_negative_curvature_beside_a_huge_one_is_no_rounding():
    s = minimize(lambda x: 5e5 * (x[0] - x[1]) ** 2 - 1e-5 * x[1] ** 2 + 1e-6 * x[1] ** 4, t(0.0, 0.0))
    assert s.status == "converged", s.message
    assert s.objective == pytest.approx(-2.5e-5, rel=1e-5)


@pytest.mark.parametrize("size", [1e-8, 1e8])
@pytest.mark.parametrize("row", [None, lambda x, size: (x[1] / size - 0.5).reshape(1)])
def test_a_variable_of_another_size_is_not_left_where_it_was(size, row):
    given = {} if row is None else {"inequality": lambda x: row(x, size)}
    s = minimize(lambda x: (x[0] - 1) ** 2 + (x[1] / size - 1) ** 2, t(0.0, 0.0), **given)
    assert s.status == "converged", s.message
    assert [float(s.x[0]), float(s.x[1]) / size] == pytest.approx([1.0, 1.0 if row is None else 0.5], abs=1e-6)


def test_sizes_from_a_thousandth_to_a_hundred_million():
    """Hock and Schittkowski 54."""
    middle, spread = t(1e4, 1, 2e6, 10, 1e-3, 1e8), t(8e3, 1, 7e6, 50, 0.05, 5e8)

    def objective(x):
        u = (x - middle) / spread
        return -torch.exp(-((u[0] ** 2 + 0.4 * u[0] * u[1] + u[1] ** 2) / 0.96 + square(u[2:])) / 2)

    s = minimize(
        objective,
        t(6e3, 1.5, 4e6, 2, 3e-3, 5e7),
        equality=lambda x: (x[0] + 4e3 * x[1] - 1.76e4).reshape(1) / 1e4,
        bounds=(t(0, -10, 0, 0, -1, 0), t(2e4, 10, 1e7, 20, 1, 2e8)),
    )
    assert s.status == "converged", s.message
    assert s.objective == pytest.approx(-np.exp(-27 / 280), rel=1e-8)


def test_a_gradient_that_units_leave_is_not_called_small():
    """Meyer's fit is so steep that its gradient cannot be computed to less than 1e-4: curvature is the proof."""
    y = t(34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872)
    k = torch.arange(1, 17)
    s = minimize(lambda z: square(z[0] * torch.exp(z[1] / (45 + 5 * k + z[2])) - y), t(0.02, 4000, 250))
    assert s.status == "converged", s.message
    assert s.objective == pytest.approx(87.9458551707, rel=1e-8)
    assert s.residuals.stationarity <= 1e-5 or "curvature is the proof" in s.next_move


# ------------------------------------------------------------------------------------------- falls with and without end


FALLS_WITHOUT_END = {
    "a linear program": (lambda x: -x[0], t(0.0, 0.0), lambda x: torch.stack([x[0] - x[1], -x[1] - 3])),
    "a product held": (lambda x: -x.sum(), t(0.0, 0.0), lambda x: torch.stack([x[0] * x[1] - 1, x[0] ** 2 - 4])),
    "a cube": (lambda x: (x**3).sum(), t(1.0), None),
}


@pytest.mark.parametrize("name", FALLS_WITHOUT_END)
def test_a_fall_without_end_is_shown_where_every_row_is_met(name):
    objective, x0, rows = FALLS_WITHOUT_END[name]
    s = minimize(objective, x0, inequality=rows)
    assert s.status == "unbounded", s.message
    if rows is not None:
        assert float((rows(s.x) / (1 + s.x.abs().max() * 1e-8)).max()) <= 1e-5


FALLS_WITH_AN_END = {
    "far down": (lambda x: -x[0] + 2e-13 * x[0] ** 2, t(0.0), None, -1.25e12),
    "far down, with a row": (lambda x: -x[0] + 2e-13 * x[0] ** 2, t(0.0, 0.0), lambda x: x[1:] ** 2 - 1, -1.25e12),
    "a row that bends at once": (lambda x: -(x**3).sum(), t(1.0), lambda x: torch.atan(x) - 1, -(np.tan(1.0) ** 3)),
}


@pytest.mark.parametrize("name", FALLS_WITH_AN_END)
def test_a_minimum_far_down_is_not_called_a_fall_without_end(name):
    objective, x0, rows, least = FALLS_WITH_AN_END[name]
    s = minimize(objective, x0, inequality=rows)
    assert s.status == "converged", s.message
    assert s.objective == pytest.approx(least, rel=1e-6)


def test_a_pole_behind_a_wall_is_no_way_down():
    s = minimize(lambda x: 1 / x[0] + 1e-3 * x[0] + 1e-8 * x[1] ** 2, t(0.02, 1.0))
    assert s.status == "converged", s.message
    assert s.x.tolist() == pytest.approx([1000**0.5, 0.0], rel=1e-4, abs=1e-3)


# ------------------------------------------------------------------------------------------- derivatives, kinks


@pytest.mark.parametrize("n", [1900, 2100])
def test_many_variables_have_no_kink(n):
    c = torch.linspace(-2, 2, n, dtype=torch.float64)
    s = minimize(
        lambda x: ((x - c) ** 4 + (x - c) ** 2).sum(), 0 * c, inequality=lambda x: (square(x) - n / 2).reshape(1)
    )
    assert s.status == "converged", s.message
    assert s.residuals.holds(1e-6)


@pytest.mark.parametrize("rows", [None, lambda x: (square(x) - 1.5).reshape(1)])
def test_functions_differentiated_once_are_recognized_though_they_hand_out_zeros(rows):
    given = {} if rows is None else {"inequality": once(rows)}
    s = minimize(once(rosenbrock), t(-1.2, 1.0), **given)
    twice = minimize(rosenbrock, t(-1.2, 1.0), **({} if rows is None else {"inequality": rows}))
    assert (s.status, twice.status) == ("converged", "converged")
    assert "differences of gradients" in s.message
    assert s.objective == pytest.approx(twice.objective, abs=1e-8)


def test_second_derivatives_that_vanish_at_the_start_are_believed():
    s = minimize(lambda x: torch.sin(x[0]) * torch.cos(x[1]) + 0.1 * x[0], t(0.0, 0.0), bounds=(-2.0, 2.0))
    assert s.status == "converged"
    assert "differences" not in s.message


def test_a_term_with_a_kink_is_named():
    s = minimize(
        lambda x: 8 * (x[0] ** 2 - x[1]).abs() + (1 - x[0]) ** 2,
        t(1.0, 1.0),
        inequality=lambda x: torch.stack([2**0.5 * x[0] - 1, 2 * x[1] - 1]),
    )
    assert s.status == "converged" or ("a kink" in s.message and "t >= u" in s.next_move)
    if s.status == "converged":
        assert s.objective == pytest.approx((1 - 0.5**0.5) ** 2, abs=1e-6)


# ------------------------------------------------------------------------------------------------- programs, limits


def test_a_linear_program_costs_a_few_evaluations():
    draw = np.random.default_rng(0)
    A, c = torch.tensor(draw.standard_normal((12, 20))), torch.tensor(draw.standard_normal(20))
    b = A @ torch.tensor(draw.random(20)) + 0.1
    s = minimize(lambda x: c @ x, 0 * c, inequality=lambda x: A @ x - b, bounds=(0.0, 1.0))
    assert s.status == "converged", s.message
    assert s.residuals.holds(1e-9)
    assert s.evaluations <= 10


def test_a_quadratic_program_costs_a_few_evaluations():
    draw = np.random.default_rng(1)
    root, c = torch.tensor(draw.standard_normal((20, 20))), torch.tensor(draw.standard_normal(20))
    A = torch.tensor(draw.standard_normal((12, 20)))
    s = minimize(lambda x: square(root @ x) / 2 + c @ x, 0 * c, inequality=lambda x: A @ x - 0.01, bounds=(-0.5, 0.5))
    assert s.status == "converged", s.message
    assert s.residuals.holds(1e-9)
    assert s.evaluations <= 25


def test_a_local_conflict_says_so_first():
    s = minimize(square, t(0.5), inequality=lambda x: torch.sin(3 * x) + 1.5)
    assert s.status == "infeasible"
    assert s.message.startswith("Local only")


@pytest.mark.parametrize("rows", [None, lambda x: (x.sum() - 1).reshape(1)])
def test_evaluations_are_limited_and_the_best_point_is_handed_back(rows):
    seen = []
    s = minimize(lambda x: seen.append(float(rosenbrock(x))) or rosenbrock(x), t(-1.2, 1.0), inequality=rows,
                 max_evaluations=12)  # fmt: skip
    assert s.status == "budget_spent"
    assert "Spent 12 evaluations: x is the best point seen" in s.message
    assert s.evaluations <= 12
    if rows is None:
        assert s.objective == min(seen)


def test_time_is_limited():
    def slow(x):
        time.sleep(0.01)
        return rosenbrock(x)

    began = time.monotonic()
    s = minimize(slow, t(-1.2, 1.0), time_limit=0.1)
    assert s.status == "budget_spent"
    assert "Spent 0.1 seconds" in s.message
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(("name", "value"), [("max_evaluations", 0), ("time_limit", 0.0), ("time_limit", -1.0)])
def test_limits_that_leave_nothing_are_refused(name, value):
    with pytest.raises(InvalidInput, match=f"`{name}` is {value}"):
        minimize(square, t(1.0), **{name: value})
