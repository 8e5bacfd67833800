"""The laws of a projection, on each kind of polytope: agreement with a reference, invariances, derivatives."""

from __future__ import annotations

import pytest
import torch

from solvers import WeightPolytope, project
from tests.support import projection_properties as law

KINDS = {
    "simplex": WeightPolytope(4),
    "box": WeightPolytope(4, 0.05, 0.5),
    "chain": WeightPolytope(4, 0.05, 0.6, [(0, 1), (1, 2), (2, 3)]),
    "tiers": WeightPolytope(5, 0.02, 0.6, [(i, j) for i in (1, 3) for j in (0, 2, 4)]),
    "partial order": WeightPolytope(4, 0.05, 0.6, [(0, 2), (1, 2), (1, 3)]),
    "own bounds": WeightPolytope(4, [0.0, 0.1, 0.05, 0.0], [0.6, 0.5, 0.9, 0.3]),
    "own bounds, chain": WeightPolytope(4, [0.0, 0.1, 0.05, 0.0], [0.6, 0.5, 0.9, 0.3], [(2, 0), (0, 1), (1, 3)]),
    "own bounds, margin": WeightPolytope(
        5, [0.1, 0.02, 0.0, 0.05, 0.1], [0.4, 0.5, 0.3, 0.3, 0.9], [(4, 0), (0, 1), (1, 3), (3, 2)], margin=0.01
    ),
    "tiers, margin": WeightPolytope(5, 0.02, 0.6, [(i, j) for i in (0, 3) for j in (1, 2, 4)], margin=0.07),
    "own bounds, partial order": WeightPolytope(4, [0.0, 0.1, 0.05, 0.0], [0.6, 0.5, 0.9, 0.3], [(0, 2), (1, 2)]),
    "margin": WeightPolytope(4, 0.02, 0.7, [(0, 1), (2, 3)], margin=0.05),
    "linear": WeightPolytope(4, 0.0, 0.8, [(0, 3)], linear=([[1.0, 1.0, 0, 0]], [0.6], [[0, 1.0, -2.0, 0]], [0.0])),
}
EXACT = ["simplex", "box", "chain", "tiers", "partial order"]
EXACT += ["own bounds", "own bounds, chain", "own bounds, margin", "tiers, margin"]
METRICS = ["euclidean", "kl"]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_metric = pytest.mark.parametrize("metric", METRICS)


def scores(kind: str, metric: str, seed: int = 0, rows: int = 12):
    return law.scores_for(metric, seed, rows, KINDS[kind].n_teachers, spread=0.6)


@pytest.mark.parametrize(
    ("seed", "rows"),
    [(0, 2), pytest.param(0, 11, marks=pytest.mark.slow), pytest.param(100, 11, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("order", ["none", "chain", "tiers"])
def test_exact_agrees_with_reference(order, seed, rows):
    """So many problems an order of each K from 1 to 16: 96 in the default suite, 1,056 in the slow one."""
    for K in range(1, 17):
        polytope = law.random_polytope(seed + K, K, order)
        v_BK = law.scores_for("euclidean", seed + K, rows, K)
        law.assert_agrees_with_reference(polytope, v_BK, "euclidean", engine="exact")


@pytest.mark.parametrize("order", ["none", "chain", "tiers"])
def test_exact_kl_agrees_with_reference(order):
    for K in range(1, 17):
        polytope = law.random_polytope(K, K, order)
        law.assert_agrees_with_reference(polytope, law.scores_for("kl", K, 3, K), "kl", engine="exact")


@each_metric
@each_kind
def test_each_kind_agrees_with_reference(kind, metric):
    law.assert_agrees_with_reference(KINDS[kind], scores(kind, metric), metric)


@pytest.mark.parametrize(("metric", "rows"), [("euclidean", 4), ("kl", 4)])
def test_random_polytopes_agree_with_reference(metric, rows):
    """30 polytopes a metric with own bounds, margins, partial orders and linear rows, built round a random point."""
    for seed in range(30):
        polytope = law.random_general_polytope(seed)
        v_BK = law.scores_for(metric, seed, rows, polytope.n_teachers, spread=0.6)
        law.assert_agrees_with_reference(polytope, v_BK, metric)


@each_metric
@pytest.mark.parametrize("kind", EXACT)
def test_engines_agree(kind, metric):
    v_BK = scores(kind, metric, seed=3)
    exact_BK, cvxpy_BK = (project(v_BK, KINDS[kind], metric=metric, engine=engine) for engine in ("exact", "cvxpy"))
    torch.testing.assert_close(exact_BK, cvxpy_BK, atol=1e-12, rtol=0)


@each_metric
@each_kind
def test_idempotent(kind, metric):
    law.assert_idempotent(KINDS[kind], scores(kind, metric), metric)


@pytest.mark.parametrize("K", [2, 9, 17, 33, 65, 130, 256])
@pytest.mark.parametrize("order", ["none", "chain", "tiers", "own tiers"])
def test_projecting_again_changes_no_bit(order, K):
    polytope = law.random_polytope(K, K, "none" if order == "own tiers" else order)
    safety_BK = torch.randint(0, 3, (300, K), generator=law.generator(K)) if order == "own tiers" else None
    v_BK = law.normal(K, 300, K) * 2 / K
    v_BK[::3] = v_BK[::3].mul(K).round().div(K)  # ties
    w_BK = project(v_BK, polytope, safety=safety_BK)
    assert torch.equal(project(w_BK, polytope, safety=safety_BK), w_BK)


@each_kind
def test_never_moves_two_points_apart(kind):
    v_BK = scores(kind, "euclidean", seed=1)
    law.assert_never_moves_points_apart(KINDS[kind], v_BK, v_BK + 0.3 * scores(kind, "euclidean", seed=2))


@each_metric
@each_kind
def test_shift_or_scale_changes_nothing(kind, metric):
    law.assert_shift_or_scale_changes_nothing(KINDS[kind], scores(kind, metric), metric)


@each_metric
@each_kind
def test_relabelling_teachers_relabels_weights(kind, metric):
    law.assert_relabelling_teachers_relabels_weights(KINDS[kind], scores(kind, metric), metric)


@each_metric
@each_kind
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e4, 1e8])
def test_conforms_at_every_scale_with_ties(kind, metric, scale):
    v_BK = scores(kind, metric, seed=4, rows=6).mul(4).round().div(4) * scale
    v_BK = v_BK.clamp_min(scale / 8) if metric == "kl" else v_BK
    v_BK[0] = v_BK[0, 0]
    law.assert_conforms(project(v_BK, KINDS[kind], metric=metric), KINDS[kind])


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e4, 1e8, 1e16, 1e30])
@pytest.mark.parametrize("kind", EXACT)
def test_short_floats_conform_at_every_scale(kind, scale):
    """Float32 cannot tell 1e8 from 1e8 + 1, so shifts as small as the bounds must not be sought there."""
    v_BK = (scores(kind, "euclidean", seed=4, rows=200).mul(4).round().div(4) * scale).float()
    for moved_BK in (v_BK, v_BK + 3 * scale):
        w_BK = project(moved_BK, KINDS[kind])
        law.assert_conforms(w_BK, KINDS[kind])
        if scale <= 1e8:
            accurate_BK = project(moved_BK.double(), KINDS[kind])
            torch.testing.assert_close(w_BK.double(), accurate_BK, atol=4e-7 * max(1.0, scale), rtol=0)


@each_kind
@pytest.mark.parametrize("scale", [1e4, 1e8])
def test_distant_scores_satisfy_the_optimality_condition(kind, scale):
    """(v - w) . (u - w) <= 0 for every u in the polytope; here u are projections of other scores."""
    v_BK, polytope = scores(kind, "euclidean", seed=5) * scale, KINDS[kind]
    w_BK, others_BK = project(v_BK, polytope), project(scores(kind, "euclidean", seed=6, rows=40), polytope)
    gain = torch.einsum("bk,bok->bo", (v_BK - w_BK) / scale, others_BK[None] - w_BK[:, None])
    assert gain.max() <= 1e-12


@each_metric
@pytest.mark.parametrize("K", [33, 128, 256])
@pytest.mark.parametrize("orderings", [[], [(0, 1), (2, 1)], [(0, 1), (2, 3), (2, 1)]])
def test_many_equal_scores_below_a_high_one_sum_to_one(K, orderings, metric):
    """Summed relative to the high score, the equal ones would round K times the same way."""
    polytope = WeightPolytope(K, orderings=orderings)
    v_BK = torch.full((40, K), 1e-9, dtype=torch.float64)
    v_BK[:, 0] = torch.linspace(0.1, 0.99, 40, dtype=torch.float64)
    law.assert_conforms(project(v_BK, polytope, metric=metric), polytope)


@each_metric
@pytest.mark.parametrize("kind", ["tiers", "own bounds", "own bounds, chain", "own bounds, margin", "tiers, margin"])
@pytest.mark.parametrize("spread", [4.0, 18.0])
def test_engines_agree_on_distant_scores(metric, spread, kind):
    polytope = KINDS[kind]
    v_BK = law.scores_for(metric, 7, 20, polytope.n_teachers, spread=spread)
    exact_BK, cvxpy_BK = (project(v_BK, polytope, metric=metric, engine=engine) for engine in ("exact", "cvxpy"))
    torch.testing.assert_close(exact_BK, cvxpy_BK, atol=1e-12, rtol=0)


@each_metric
@each_kind
def test_differentiable_twice(kind, metric):
    law.assert_differentiable_twice(KINDS[kind], scores(kind, metric, seed=8, rows=4), metric)


@each_metric
@pytest.mark.parametrize("kind", EXACT)
def test_engines_have_one_gradient(kind, metric):
    v_BK, grad_BK = scores(kind, metric, seed=9), scores(kind, "euclidean", seed=10)
    slopes = []
    for engine in ("exact", "cvxpy"):
        leaf_BK = v_BK.clone().requires_grad_()
        project(leaf_BK, KINDS[kind], metric=metric, engine=engine).backward(grad_BK)
        slopes.append(leaf_BK.grad)
    torch.testing.assert_close(*slopes, atol=1e-9, rtol=1e-9)


@each_metric
@pytest.mark.parametrize(
    "kind", ["chain", "partial order", "own bounds", "own bounds, margin", "tiers, margin", "margin", "linear"]
)
def test_gradient_agrees_with_cvxpylayers(kind, metric):
    cp = pytest.importorskip("cvxpy")
    layers = pytest.importorskip("cvxpylayers.torch")
    polytope = KINDS[kind]
    K = polytope.n_teachers
    w_K, v_K = cp.Variable(K), cp.Parameter(K)
    rules = [cp.sum(w_K) == 1, w_K >= list(polytope.lower), w_K <= list(polytope.upper)]
    rules += [w_K[i] - w_K[j] >= polytope.margin for i, j in polytope.orderings]
    if polytope.linear:
        rules += [torch.tensor(polytope.linear.A).numpy() @ w_K <= list(polytope.linear.b)]
        rules += [torch.tensor(polytope.linear.C).numpy() @ w_K == list(polytope.linear.d)]
    curved = 0.5 * cp.sum_squares(w_K) if metric == "euclidean" else -cp.sum(cp.entr(w_K))
    layer = layers.CvxpyLayer(cp.Problem(cp.Minimize(curved - v_K @ w_K), rules), parameters=[v_K], variables=[w_K])
    v_BK, grad_BK = scores(kind, metric, seed=11, rows=6), scores(kind, "euclidean", seed=12, rows=6)
    ours_BK, theirs_BK = v_BK.clone().requires_grad_(), v_BK.clone().requires_grad_()
    project(ours_BK, polytope, metric=metric).backward(grad_BK)
    scores_BK = theirs_BK if metric == "euclidean" else theirs_BK.log()
    layer(scores_BK, solver_args={"solve_method": "Clarabel"})[0].backward(grad_BK)
    # Clarabel puts KL answers within 1e-5, and the layer's derivative is taken there
    close = 1e-4 if metric == "euclidean" else 1e-3
    torch.testing.assert_close(ours_BK.grad, theirs_BK.grad, atol=close, rtol=close)


def test_scores_in_distant_groups():
    """Where the sum stays level above one for long, the root is at the far end of the level stretch."""
    v_BK = torch.tensor([[2e8, 2e8, 0.0, 0.0], [0.0, 2e8, 0.0, 2e8], [2e30, 2e30, 0.0, -1e30]], dtype=torch.float32)
    expected_BK = torch.tensor([[0.4, 0.4, 0.1, 0.1], [0.1, 0.4, 0.1, 0.4], [0.4, 0.4, 0.1, 0.1]])
    torch.testing.assert_close(project(v_BK, WeightPolytope(4, 0.1, 0.6)), expected_BK)
