"""KKT residuals: optimal points pass, and every way of being wrong is refused."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from solvers import InvalidInput
from solvers.kkt import KKTResiduals, add_gradient, gradients, kkt_residuals
from tests.support.curves import t as vec


def at(x=1.0, lam=1.0):
    """Residuals of min x subject to 1 - x <= 0; optimal at x = 1, lambda = 1."""
    return kkt_residuals(vec(1.0), jacobian_Mn=vec(-1.0).reshape(1, 1), g_M=vec(1 - x), lambda_M=vec(lam))


def circle(x, y, mu):
    """Residuals of min x^2 + y^2 subject to x + y = 1; optimal at (.5, .5), mu = -1."""
    return kkt_residuals(vec(2 * x, 2 * y), jacobian_En=vec(1.0, 1.0).reshape(1, 2), h_E=vec(x + y - 1), mu_E=vec(mu))


def test_known_optima_pass_exactly():
    assert at() == KKTResiduals(0.0, 0.0, 0.0, 0.0)
    assert circle(0.5, 0.5, -1.0) == KKTResiduals(0.0, 0.0, 0.0, 0.0)
    assert kkt_residuals(vec(0.0, 0.0)).holds(0.0)  # nothing constrains a stationary point


WRONG = {
    "negative multiplier": (at(lam=-1.0), {"stationarity": 1.0, "dual": 1.0, "complementarity": 1.0, "primal": 0.0}),
    "infeasible point": (at(x=0.75), {"primal": 0.25, "complementarity": 0.25, "stationarity": 0.0}),
    "not stationary": (at(lam=0.5), {"stationarity": 0.25, "primal": 0.0, "dual": 0.0, "complementarity": 0.0}),
    "slack but charged": (at(x=3.0), {"complementarity": 1.0, "primal": 0.0, "stationarity": 0.0}),
    "wrong sign of mu": (circle(0.5, 0.5, 1.0), {"stationarity": 2 * 2**0.5 / (1 + 2**0.5), "primal": 0.0}),
    "off the line": (circle(0.6, 0.6, -1.2), {"primal": 0.2, "stationarity": 0.0}),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answers_are_refused(case):
    residuals, expected = WRONG[case]
    assert not residuals.holds(1e-3)
    for name, value in expected.items():
        assert getattr(residuals, name) == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("part", ["gradient", "jacobian", "g", "lambda", "h", "mu", "jacobian_h"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_never_passes(part, bad):
    parts = {
        "gradient": vec(0.0, 0.0),
        "jacobian": torch.zeros(2, 2, dtype=torch.float64),
        "g": vec(0.0, 0.0),
        "lambda": vec(0.0, 0.0),
        "jacobian_h": torch.zeros(1, 2, dtype=torch.float64),
        "h": vec(0.0),
        "mu": vec(0.0),
    }
    names = {"jacobian": "jacobian_Mn", "g": "g_M", "lambda": "lambda_M", "jacobian_h": "jacobian_En"}
    names |= {"h": "h_E", "mu": "mu_E"}

    def holds():
        rest = {names[name]: value for name, value in parts.items() if name != "gradient"}
        return kkt_residuals(parts["gradient"], **rest).holds(1e9)

    assert holds()
    parts[part].view(-1)[-1] = bad  # the last entry, where a careless max would miss it
    assert not holds()


def test_holds_has_one_limit_for_all_and_one_of_its_own_for_stationarity():
    residuals = KKTResiduals(stationarity=0.5, primal=1e-4, dual=0.0, complementarity=1e-3)
    assert residuals.holds(1e-3, stationarity=0.5)
    assert not residuals.holds(1e-3)
    assert not residuals.holds(5e-4, stationarity=1.0)
    assert not KKTResiduals(float("nan"), 0, 0, 0).holds(float("inf"))
    assert not KKTResiduals(0, 0, 0, 0).holds(float("nan"))


@pytest.mark.parametrize("seed", range(5))
def test_a_random_qp_agrees_with_cvxpy(seed):
    """Minimise x'Px/2 + q'x subject to Gx <= b, Ax = c: cvxpy's primal and dual pass, perturbed ones do not."""
    draw = np.random.default_rng(seed)
    root, q = draw.normal(size=(6, 6)), draw.normal(size=6)
    P, G, A = root @ root.T + np.eye(6), draw.normal(size=(8, 6)), draw.normal(size=(2, 6))
    b, c = np.abs(draw.normal(size=8)) * 0.3, draw.normal(size=2) * 0.1
    x = cp.Variable(6)
    rows = [G @ x <= b, A @ x == c]
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, cp.psd_wrap(P)) / 2 + q @ x), rows)
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    assert problem.status == "optimal"
    lam, mu = rows[0].dual_value, rows[1].dual_value
    assert (lam > 1e-3).any()

    def residuals(x, lam, mu):
        return kkt_residuals(
            torch.tensor(P @ x + q),
            jacobian_Mn=torch.tensor(G),
            g_M=torch.tensor(G @ x - b),
            lambda_M=torch.tensor(lam),
            jacobian_En=torch.tensor(A),
            h_E=torch.tensor(A @ x - c),
            mu_E=torch.tensor(mu),
        )

    assert residuals(x.value, lam, mu).holds(1e-6)
    for wrong in ((x.value + 0.01, lam, mu), (x.value, lam + 0.01, mu), (x.value, -lam, mu), (x.value, lam, -mu - 0.1)):
        assert not residuals(*wrong).holds(1e-6)


def test_gradients_of_several_values_in_order_with_zeros_for_the_unused():
    a, b = vec(1.0, 2.0).requires_grad_(), torch.tensor([[3.0]]).requires_grad_()
    jacobian = gradients([(a**2).sum(), b.sum() ** 3, torch.tensor(7.0), a[0].double() * b[0, 0]], [a, b])
    expected = [[2, 4, 0], [0, 0, 27], [0, 0, 0], [3, 0, 1]]
    torch.testing.assert_close(jacobian, torch.tensor(expected, dtype=torch.float64))
    assert gradients([], [a, b]).shape == (0, 3)


def test_gradients_of_float32_variables_add_up_in_float64():
    x = torch.tensor([1e-9, 1.0]).requires_grad_()
    total = vec(1.0, 1.0)
    for value in ((x * torch.tensor([1e-9, 3.0])).sum(), x[0] * 1e-9, torch.tensor(5.0)):
        add_gradient(total, value, [x])
    assert total[0] - 1 == pytest.approx(2e-9, rel=1e-6)  # float32 would not have seen it
    assert total[1] == 4


REFUSED = {
    "no multipliers": ({"jacobian_Mn": torch.ones(1, 2), "g_M": vec(0.0)}, "inequalities need.*missing: multipliers"),
    "values alone": ({"h_E": vec(0.0)}, "equalities need.*missing: Jacobian and multipliers"),
    "columns": (
        {"jacobian_Mn": torch.ones(1, 3), "g_M": vec(0.0), "lambda_M": vec(0.0)},
        r"inequalities do not fit together: Jacobian \(1, 3\).*wanted \(rows, 2\)",
    ),
    "rows": (
        {"jacobian_En": torch.ones(2, 2), "h_E": vec(0.0), "mu_E": vec(0.0, 0.0)},
        r"equalities do not fit together: Jacobian \(2, 2\), values \(1,\), multipliers \(2,\)",
    ),
    "a number": (
        {"jacobian_Mn": torch.ones(1, 2), "g_M": torch.tensor(0.0), "lambda_M": vec(0.0)},
        r"values \(\), multipliers \(1,\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parts_that_do_not_fit_are_named(case):
    parts, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        kkt_residuals(vec(1.0, 1.0), **parts)


def test_a_gradient_that_is_no_vector_is_refused():
    with pytest.raises(InvalidInput, match=r"gradient has shape \(1, 2\); wanted \(n,\)"):
        kkt_residuals(torch.ones(1, 2))


def test_a_sparse_gradient_is_refused_with_what_makes_it():
    table = torch.nn.Embedding(5, 2, sparse=True)
    with pytest.raises(InvalidInput, match=r"A gradient is sparse; .* Make embeddings with sparse=False"):
        add_gradient(torch.zeros(10, dtype=torch.float64), table(torch.tensor([1])).sum(), [table.weight])
