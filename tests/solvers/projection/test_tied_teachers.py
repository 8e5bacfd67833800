"""Orderings that go round in a circle, asked to mean ties: the teachers on it weigh the same, to the last bit."""

from __future__ import annotations

import pytest
import torch

from solvers import InvalidInput, WeightPolytope, certify_projection, project
from tests.support import projection_properties as law

RING = [(0, 2), (2, 4), (4, 0)]
KINDS = {
    "one group": WeightPolytope(5, 0.05, 0.5, RING, ties=True),
    "two groups in tiers": WeightPolytope(5, 0.02, 0.6, [*RING, (1, 3), (3, 1), (0, 1)], ties=True),
    "beside a partial order": WeightPolytope(6, 0.02, 0.6, [*RING, (1, 0), (5, 3), (4, 3)], ties=True),
    "own bounds": WeightPolytope(5, [0.0, 0.1, 0.08, 0.0, 0.0], [0.9, 0.5, 0.3, 0.9, 0.2], [*RING, (1, 3)], ties=True),
    "linear rows": WeightPolytope(5, 0.0, 0.8, RING, linear=([[1.0, 1.0, 0, 0, 0]], [0.3]), ties=True),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_metric = pytest.mark.parametrize("metric", ["euclidean", "kl"])


@each_metric
@each_kind
def test_agrees_with_reference(kind, metric):
    polytope = KINDS[kind]
    v_BK = law.scores_for(metric, 3, 12, polytope.n_teachers, spread=0.6)
    law.assert_agrees_with_reference(polytope, v_BK, metric)
    w_BK = project(v_BK, polytope, metric=metric)
    law.assert_conforms(w_BK, polytope)
    for group in polytope.tied:
        assert all(torch.equal(w_BK[:, k], w_BK[:, group[0]]) for k in group)


@each_metric
@each_kind
def test_gradients(kind, metric):
    polytope = KINDS[kind]
    v_BK = law.scores_for(metric, 5, 3, polytope.n_teachers, spread=0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: project(v, polytope, metric=metric), v_BK, eps=1e-7, atol=1e-5)


@each_kind
def test_certified(kind):
    polytope = KINDS[kind]
    v_BK = law.scores_for("euclidean", 6, 10, polytope.n_teachers)
    assert certify_projection(v_BK, project(v_BK, polytope), polytope).holds()


def test_only_critical_rows_are_tied():
    polytope = KINDS["one group"]
    v_BK = law.normal(1, 20, 5)
    critical_B = torch.arange(20) % 2 == 0
    w_BK = project(v_BK, polytope, critical=critical_B)
    assert torch.equal(w_BK[critical_B], project(v_BK[critical_B], polytope))
    assert torch.equal(w_BK[~critical_B], project(v_BK[~critical_B], polytope.without_orderings()))


def test_bounds_of_rows_meet_within_a_group():
    polytope = KINDS["one group"]
    v_BK = law.normal(2, 4, 5)
    upper_BK = torch.full((4, 5), 0.5, dtype=torch.float64)
    upper_BK[1, 2] = 0.1
    w_BK = project(v_BK, polytope, upper=upper_BK)
    rows = WeightPolytope(5, 0.05, [0.5, 0.5, 0.1, 0.5, 0.5], RING, ties=True)
    torch.testing.assert_close(w_BK[1], project(v_BK[1], rows), atol=1e-12, rtol=0)
    torch.testing.assert_close(w_BK[[0, 2, 3]], project(v_BK[[0, 2, 3]], polytope), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_short_types(dtype):
    polytope = KINDS["two groups in tiers"]
    v_BK = law.normal(4, 50, 5).to(dtype)
    law.assert_conforms(project(v_BK, polytope), polytope)


def test_engines_agree():
    polytope = KINDS["two groups in tiers"]
    v_BK = law.normal(4, 20, 5)
    exact_BK, cvxpy_BK = (project(v_BK, polytope, engine=engine) for engine in ("exact", "cvxpy"))
    torch.testing.assert_close(exact_BK, cvxpy_BK, atol=1e-12, rtol=0)


def test_a_circle_without_ties_is_refused_with_a_way_out():
    with pytest.raises(InvalidInput, match=r"0 >= 2 >= 4 >= 0.*ties=True"):
        WeightPolytope(5, orderings=RING)
