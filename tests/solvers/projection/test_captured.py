"""Projection inside captured graphs, torch.func transforms and autocast: the same answers."""

from __future__ import annotations

import pytest
import torch

from solvers import LinearRows, WeightPolytope, project
from solvers.projection._captured_projection import project_rows
from solvers.projection._projection_orders import make_partial_order, make_shared_order
from tests.support import projection_properties as law

BOX = WeightPolytope(4, 0.05, 0.6)
KINDS = {
    "box": BOX,
    "chain": WeightPolytope(4, 0.05, 0.6, [(0, 1), (1, 2), (2, 3)]),
    "partial": WeightPolytope(4, 0.05, 0.6, [(0, 2), (1, 2), (1, 3)]),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_metric = pytest.mark.parametrize("metric", ["euclidean", "kl"])


@each_metric
@each_kind
def test_compiled_without_a_break(kind, metric):
    v_BK = law.scores_for(metric, 0, 9, 4)
    plain_BK, compiled_BK = (v_BK.clone().requires_grad_() for _ in range(2))
    compiled = torch.compile(lambda v: project(v, KINDS[kind], metric=metric), fullgraph=True, backend="aot_eager")
    found, expected = compiled(compiled_BK), project(plain_BK, KINDS[kind], metric=metric)
    assert torch.equal(found, expected)
    for w_BK in (found, expected):
        (w_BK**2).sum().backward()
    torch.testing.assert_close(compiled_BK.grad, plain_BK.grad)


def test_compiled_with_safety_and_a_mask():
    v_BK, safety_BK = law.normal(0, 9, 4), law.normal(1, 9, 4)
    critical_B = law.normal(2, 9) > 0
    compiled = torch.compile(lambda v, s, c: project(v, BOX, safety=s, critical=c), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(v_BK, safety_BK, critical_B), project(v_BK, BOX, safety=safety_BK, critical=critical_B))


def test_compiled_short_types_keep_bounds():
    v_BK = law.normal(0, 50, 4).bfloat16()
    compiled = torch.compile(lambda v: project(v, KINDS["chain"]), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(v_BK), project(v_BK, KINDS["chain"]))


ANY = {
    "own bounds": (WeightPolytope(4, [0.0, 0.1, 0.05, 0.0], 0.6), {}),
    "margin": (WeightPolytope(4, 0.05, 0.7, [(0, 1), (1, 2), (2, 3)], margin=0.05), {}),
    "linear row": (WeightPolytope(4, linear=LinearRows(A=[[1.0, 1.0, 0.0, 0.0]], b=[0.4])), {}),
    "bounds of rows": (BOX, {"lower": 0.2 * torch.rand(9, 4, generator=law.generator(5)).double()}),
    "one number for all": (WeightPolytope(4), {"upper": 0.4}),
    "margin by safety": (WeightPolytope(4, margin=0.02), {"safety": law.normal(7, 9, 4)}),
}


@pytest.mark.parametrize(("kind", "metric"), [*((kind, "euclidean") for kind in ANY), ("own bounds", "kl")])
def test_any_polytope_is_compiled_without_a_break(kind, metric):
    torch._dynamo.reset()  # one line is compiled for many polytopes, and torch counts that against a limit
    polytope, rows = ANY[kind]
    v_BK = law.scores_for(metric, 0, 9, 4)
    plain_BK, compiled_BK = (v_BK.clone().requires_grad_() for _ in range(2))
    compiled = torch.compile(lambda v: project(v, polytope, metric=metric, **rows), fullgraph=True, backend="aot_eager")
    found, expected = compiled(compiled_BK), project(plain_BK, polytope, metric=metric, **rows)
    assert torch.equal(found, expected)
    for w_BK in (found, expected):
        (w_BK**2).sum().backward()
    torch.testing.assert_close(compiled_BK.grad, plain_BK.grad)


def test_two_polytopes_in_one_graph_are_told_apart():
    one, other = (WeightPolytope(4, [0.0, 0.1, 0.05, low], 0.6) for low in (0.0, 0.2))
    both = torch.compile(lambda v: (project(v, one), project(v, other)), fullgraph=True, backend="aot_eager")
    v_BK = law.normal(0, 9, 4)
    found = both(v_BK)
    assert torch.equal(found[0], project(v_BK, one))
    assert torch.equal(found[1], project(v_BK, other))
    assert not torch.equal(*found)


@each_metric
@each_kind
def test_vmap_and_gradients_of_each_row(kind, metric):
    v_NBK = law.scores_for(metric, 3, 12, 4).reshape(3, 4, 4)

    def squares(v):
        return (project(v, KINDS[kind], metric=metric) ** 2).sum()

    mapped = torch.func.vmap(lambda v: project(v, KINDS[kind], metric=metric))(v_NBK)
    assert torch.equal(mapped, project(v_NBK, KINDS[kind], metric=metric))
    slopes = torch.func.vmap(torch.func.grad(squares))(v_NBK)
    leaf = v_NBK.clone().requires_grad_()
    squares(leaf).backward()
    torch.testing.assert_close(slopes, leaf.grad)


def test_vmap_over_the_last_but_one_axis():
    v_BNK = law.normal(0, 5, 3, 4)
    mapped = torch.func.vmap(lambda v: project(v, BOX), in_dims=1, out_dims=1)(v_BNK)
    assert torch.equal(mapped, project(v_BNK, BOX))


def test_autocast_leaves_the_dtype_of_the_scores():
    v_BK = law.normal(0, 5, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = project(v_BK, BOX)
    assert torch.equal(inside, project(v_BK, BOX))


@pytest.mark.parametrize("order", [make_shared_order((3, 2, 1, 0)), make_partial_order(((0, 2), (1, 2), (1, 3)), 4)])
@pytest.mark.parametrize("kl", [False, True])
def test_the_operator_keeps_torchs_rules(order, kl):
    v_BK = law.scores_for("kl" if kl else "euclidean", 1, 5, 4).requires_grad_()
    edges = torch.from_numpy(order.edge_E2)
    arguments = (v_BK, torch.from_numpy(order.order_K), order.tier_RK, edges, order.kind, 0.05, 0.6, kl)
    report = torch.library.opcheck(project_rows, arguments)
    assert set(report.values()) == {"SUCCESS"}
