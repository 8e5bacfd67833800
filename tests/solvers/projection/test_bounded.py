"""The exact path for bounds of each teacher, bounds of each row, and margins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solvers import InfeasiblePolytope, InvalidInput, WeightPolytope, project
from solvers.projection._projection_orders import BoundedOrder
from solvers.projection._row_bounds import read_polytope_bounds
from solvers.projection.exact._bounded_projection import project_bounded, pull_back_bounded
from tests.support import projection_properties as law

FORMS = ["free", "chain", "chain, margin", "tiers, margin"]
METRICS = ["euclidean", "kl"]
each_form = pytest.mark.parametrize("form", FORMS)
each_metric = pytest.mark.parametrize("metric", METRICS)


def random_bounded(seed: int, K: int, form: str) -> WeightPolytope:
    """Bounds of each teacher's own round a random point, which decides the order; in tiers, uniform bounds."""
    random = np.random.default_rng(seed)
    if form.startswith("tiers"):
        lower, upper = random.uniform(0, 0.6) / K, min(1.0, random.uniform(1.3, 4) / K)
        margin = random.uniform(0, 0.4) * min(1 / K - lower, upper - 1 / K)
        return WeightPolytope(K, lower, upper, margin=margin).ordered_by(random.integers(0, 3, K).tolist())
    inside_K = random.dirichlet(np.full(K, 2.0))
    lower_K = inside_K * random.uniform(0, 1, K) * random.integers(0, 2, K)
    upper_K = np.minimum(1, inside_K * random.uniform(1, 3, K))
    gap = np.diff(np.sort(inside_K)).min() if K > 1 else 0.0
    polytope = WeightPolytope(K, lower_K, upper_K, margin=gap * random.uniform(0.3, 1) if "margin" in form else 0.0)
    return polytope if form == "free" else polytope.ordered_by(inside_K.tolist())


@each_form
@each_metric
@pytest.mark.parametrize("K", [1, 2, 3, 4, 5, 6, 8, 11, 16])
def test_agrees_with_cvxpy(K, metric, form):
    for seed in range(8):
        polytope = random_bounded(seed, K, form)
        v_BK = law.scores_for(metric, seed, 6 if metric == "euclidean" else 3, K, spread=[0.1, 1.0, 3.0][seed % 3])
        exact_BK, cvxpy_BK = (project(v_BK, polytope, metric=metric, engine=engine) for engine in ("exact", "cvxpy"))
        law.assert_conforms(exact_BK, polytope)
        torch.testing.assert_close(exact_BK, cvxpy_BK, atol=1e-12, rtol=0)


@each_form
@each_metric
def test_conforms_and_stays_at_every_scale(metric, form):
    """Ties, duplicates, the smallest floats, scores on bounds; in all dtypes."""
    for seed, scale in enumerate([0.0, 5e-324, 1e-300, 1e-8, 1.0, 1e8, 1e16, 1e100, 1e300]):
        polytope = random_bounded(20 + seed, 7, form)
        v_BK = law.normal(seed, 60, 7).mul(4).round().div(4)
        v_BK[:20] = v_BK[:20].sign()
        v_BK[20:30] = torch.tensor(polytope.upper).double() / scale if scale else 0.0
        v_BK = (v_BK * scale).nan_to_num(0.0, 1e300, -1e300)
        if metric == "kl":
            v_BK = v_BK.abs().clamp_min(max(scale, 1e-300) * 1e-5)
        w_BK = project(v_BK, polytope, metric=metric)
        law.assert_conforms(w_BK, polytope)
        assert ((w_BK.sum(dim=-1) - 1).abs() <= 7 * 2.3e-16).all()
        kept_B = (w_BK > 1e-290).all(dim=-1) if metric == "kl" else torch.ones(60, dtype=torch.bool)
        again_BK = project(w_BK[kept_B], polytope, metric=metric)
        torch.testing.assert_close(again_BK, w_BK[kept_B], atol=1e-15 * 7, rtol=0)


@each_form
@pytest.mark.parametrize("scale", [1e4, 1e8, 1e15])
def test_large_scores_cost_no_digits(scale, form):
    """Scores whose small part is exact: their answer is that of the small part."""
    polytope = random_bounded(3, 6, form)
    step = 2.0 ** -(52 - int(np.ceil(np.log2(4 * scale))))
    v_BK = (law.normal(5, 40, 6) / step).round() * step
    moved_BK = v_BK + 2.0 ** np.ceil(np.log2(scale))
    assert torch.equal(moved_BK - 2.0 ** np.ceil(np.log2(scale)), v_BK)
    torch.testing.assert_close(project(moved_BK, polytope), project(v_BK, polytope), atol=4e-16, rtol=0)


@pytest.mark.parametrize("seeds", [12, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scale", [1e14, 1e100, 1e200])
def test_sums_hold_where_rounding_of_pooled_scores_makes_them_jump(scale, seeds):
    """Long chains of huge tied scores: their means are rounded, so blocks jump as they join."""
    for seed in range(seeds):
        polytope = random_bounded(1300 + seed, 37, "chain")
        v_BK = law.normal(seed, 200, 37)
        for scores_BK in (v_BK, v_BK.mul(2).round()):
            law.assert_conforms(project(scale * scores_BK, polytope), polytope)


def test_masked_scores_cost_no_digits():
    """Finite masks such as finfo.min stand for 'never'; the others keep their differences."""
    polytope = WeightPolytope(4, [0.1, 0.0, 0.2, 0.05], [0.6, 0.5, 0.9, 0.7])
    for least in (-1e9, -1e30, -1e280):
        w_K = project(torch.tensor([least, 0.41, 0.31, 0.2], dtype=torch.float64), polytope)
        torch.testing.assert_close(w_K, torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64), atol=1e-2, rtol=0)
        expected_K = project(torch.tensor([-5.0, 0.41, 0.31, 0.2], dtype=torch.float64), polytope)
        torch.testing.assert_close(w_K, expected_K, atol=3e-16, rtol=0)


@each_form
@each_metric
def test_gradients_agree_with_cvxpy_and_differentiate_again(metric, form):
    for seed in range(6):
        K = 2 + seed
        polytope, v_BK = random_bounded(40 + seed, K, form), law.scores_for(metric, seed, 3, K, spread=0.5)
        grad_BK, slopes = law.normal(seed, 3, K), []
        for engine in ("exact", "cvxpy"):
            leaf_BK = v_BK.clone().requires_grad_()
            project(leaf_BK, polytope, metric=metric, engine=engine).backward(grad_BK)
            slopes.append(leaf_BK.grad)
        torch.testing.assert_close(*slopes, atol=1e-9, rtol=1e-9)
        law.assert_differentiable_twice(polytope, v_BK, metric)


def test_a_block_held_by_another_members_bound_has_no_gradient():
    """Teacher 0 wants 0, is pulled up to teacher 1, which its upper bound holds at 0.2: nobody of the two moves."""
    polytope = WeightPolytope(4, 0.0, [1.0, 0.2, 1.0, 1.0]).ordered_by([1, 0, 0, 0])
    chain = WeightPolytope(4, 0.0, [0.9, 0.2, 0.15, 0.9], [(0, 1), (1, 2), (3, 0)])
    v_K = torch.tensor([0.0, 0.9, 0.1, 0.7], dtype=torch.float64, requires_grad=True)
    w_K = project(v_K, chain, engine="exact")
    assert w_K[0] == w_K[1] == 0.2
    (slope_K,) = torch.autograd.grad(w_K[3] - w_K[2] + 3 * w_K[0], v_K)
    assert slope_K[:2].tolist() == [0.0, 0.0]
    assert polytope.ranks is not None


@each_form
@each_metric
def test_both_backwards_agree(metric, form):
    polytope = random_bounded(7, 6, form)
    bounds, ranks = read_polytope_bounds(polytope), torch.tensor([polytope.ranks]).double()
    v_BK, grad_BK = law.scores_for(metric, 1, 50, 6), law.normal(2, 50, 6)
    order = BoundedOrder(ranks, bounds.low_QK, bounds.high_QK, polytope.margin)
    w_BK, block_BK = project_bounded(v_BK, order, metric == "kl")
    compiled_BK, plain_BK = (
        pull_back_bounded(grad_BK, v_BK, w_BK, block_BK, metric == "kl", compiled) for compiled in (True, False)
    )
    torch.testing.assert_close(compiled_BK, plain_BK)
    assert (compiled_BK != 0).any()


@each_form
@each_metric
def test_mapped_and_transformed(metric, form):
    polytope = random_bounded(9, 5, form)
    v_NBK, safety_BK = law.scores_for(metric, 3, 12, 5).reshape(3, 4, 5), law.normal(6, 4, 5)
    options = [{}] if polytope.orderings else [{}, {"safety": safety_BK}, {"lower": 0.5 * torch.rand(4, 1) / 5}]
    loose = WeightPolytope(5, [0.0, 0.01, 0.02, 0.03, 0.0], [1.0, 0.9, 1.0, 0.8, 0.95])
    for rows in options:
        rules = loose if rows else polytope

        def squares(v, rules=rules, rows=rows):
            return (project(v, rules, metric=metric, **rows) ** 2).sum()

        mapped = torch.func.vmap(lambda v, rules=rules, rows=rows: project(v, rules, metric=metric, **rows))(v_NBK)
        assert torch.equal(mapped, torch.stack([project(v, rules, metric=metric, **rows) for v in v_NBK]))
        slopes = torch.func.vmap(torch.func.grad(squares))(v_NBK)
        leaf = v_NBK.clone().requires_grad_()
        sum(squares(v) for v in leaf).backward()
        torch.testing.assert_close(slopes, leaf.grad)


@each_metric
@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_rows_with_their_own_order_bounds_and_mask(metric, margin):
    """All at once: each row equals its own polytope's answer by the general path."""
    rows, K = 14, 4
    v_BK, safety_BK = law.scores_for(metric, 4, rows, K), (2 * law.normal(5, rows, K)).round()
    critical_B = law.normal(6, rows) > -0.8
    random = torch.rand(2, rows, K, generator=law.generator(8), dtype=torch.float64)
    lower_BK, upper_BK = 0.1 * random[0], 0.6 + 0.4 * random[1]
    found_BK = project(
        v_BK,
        WeightPolytope(K, margin=margin),
        metric=metric,
        safety=safety_BK,
        critical=critical_B,
        lower=lower_BK,
        upper=upper_BK,
    )
    tied = 0
    for b in range(rows):
        alone = WeightPolytope(K, lower_BK[b].numpy(), upper_BK[b].numpy(), margin=margin)
        alone = alone.ordered_by(safety_BK[b].tolist()) if critical_B[b] else alone
        tied += bool(critical_B[b]) and len(safety_BK[b].unique()) < K
        law.assert_conforms(found_BK[b], alone)
        expected_K = project(v_BK[b], alone, metric=metric, engine="cvxpy")
        torch.testing.assert_close(found_BK[b], expected_K, atol=1e-12, rtol=0)
    assert 0 < tied < rows - 2, "ties take the general path, the others the exact one: both must be here"


@each_metric
def test_safety_with_ties_and_a_margin_is_one_exact_part(metric):
    polytope = WeightPolytope(5, 0.02, 0.7, margin=0.03)
    v_BK, safety_BK = law.scores_for(metric, 4, 40, 5), (2 * law.normal(5, 40, 5)).round()
    w_BK = project(v_BK, polytope, metric=metric, safety=safety_BK, engine="exact")
    law.assert_conforms(w_BK, polytope, safety=safety_BK)
    cvxpy_BK = project(v_BK[:12], polytope, metric=metric, safety=safety_BK[:12], engine="cvxpy")
    torch.testing.assert_close(w_BK[:12], cvxpy_BK, atol=1e-12, rtol=0)


@pytest.mark.parametrize("form", ["partial", "linear", "tier"])
def test_rows_bounds_where_there_is_no_exact_path(form):
    """Rows go to the general path, those alike together; rows to which no order applies stay exact."""
    polytope = {
        "partial": WeightPolytope(4, orderings=[(0, 1), (2, 3)], margin=0.01),
        "linear": WeightPolytope(4, orderings=[(0, 1)], linear=([[1.0, 1.0, 0.0, 0.0]], [0.7])),
        "tier": WeightPolytope(4, orderings=[(0, 1), (0, 2), (0, 3)]),
    }[form]
    v_BK, lower_BK = law.normal(1, 6, 4), 0.1 * torch.rand(6, 4, generator=law.generator(2)).double()
    lower_BK[3:5] = lower_BK[2]
    critical_B = torch.tensor([True, True, True, False, True, False])
    w_BK = project(v_BK, polytope, critical=critical_B, lower=lower_BK, upper=0.8)
    for b in range(6):
        alone = polytope.without_orderings().with_bounds(lower_BK[b].tolist(), [0.8] * 4)
        alone = alone.with_orderings(polytope.orderings) if critical_B[b] else alone
        law.assert_conforms(w_BK[b], alone)
        torch.testing.assert_close(w_BK[b], project(v_BK[b], alone, engine="cvxpy"), atol=1e-12, rtol=0)
    with pytest.raises(InvalidInput, match="engine='exact' has no path for a polytope with"):
        project(v_BK, polytope, lower=lower_BK, upper=0.8, engine="exact")


def test_bounds_take_any_form_that_fits():
    v, polytope = law.normal(0, 2, 3, 4), WeightPolytope(4, 0.05, 0.6)
    lower_K = [0.1, 0.0, 0.05, 0.2]
    expected = project(v, WeightPolytope(4, lower_K, 0.6))
    for lower in (lower_K, np.array(lower_K), torch.tensor(lower_K, dtype=torch.float64), np.tile(lower_K, (2, 3, 1))):
        torch.testing.assert_close(project(v, polytope, lower=lower), expected, atol=1e-15, rtol=0)
    by_row = project(v, polytope, lower=0, upper=torch.tensor([[[0.5], [0.6], [1]]], dtype=torch.float64))
    for b, upper in enumerate([0.5, 0.6, 1.0]):
        expected = project(v[:, b], WeightPolytope(4, 0.0, upper))
        torch.testing.assert_close(by_row[:, b], expected, atol=1e-15, rtol=0)
    assert isinstance(project(v.numpy(), polytope, lower=lower_K), np.ndarray)
    assert project(v[:0], polytope, lower=lower_K, upper=torch.ones(0, 3, 4)).shape == (0, 3, 4)
    assert project([3.0], WeightPolytope(1), lower=[0.5]).tolist() == [1.0]


@each_metric
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_meets_the_bounds_of_each_row(dtype, metric):
    v_BK = law.scores_for(metric, 0, 50, 4).to(dtype)
    lower_BK = 0.2 * torch.rand(50, 4, generator=law.generator(1), dtype=torch.float64)
    w_BK = project(v_BK, WeightPolytope(4, margin=0.01), metric=metric, lower=lower_BK, safety=law.normal(2, 50, 4))
    assert w_BK.dtype == dtype
    assert (w_BK.double() >= lower_BK).all()
    assert ((w_BK.double().sum(-1) - 1).abs() <= 4 * torch.finfo(dtype).eps).all()


@each_metric
@pytest.mark.parametrize(("engine", "orderings"), [("exact", [(2, 0), (3, 0), (0, 1)]), ("cvxpy", [(0, 1), (3, 2)])])
def test_bounds_that_no_number_of_the_dtype_meets_in_order_are_missed_by_rounding(engine, orderings, metric):
    """Between 0.004428 and 0.004451 there is no bfloat16: rounded inward, each for itself, the two would cross."""
    polytope = WeightPolytope(4, [0.00435, 0.004428, 0.0, 0.0], [0.004451, 0.006, 1.0, 1.0], orderings)
    v_1K = torch.tensor([[5.0, 5.0, 5.0, 5.0]], dtype=torch.bfloat16)
    w_1K = project(v_1K, polytope, metric=metric, engine=engine)
    assert polytope.check(w_1K).holds()
    assert w_1K[0, 0] == w_1K[0, 1] == torch.tensor(0.004428).bfloat16()


def test_rows_do_not_depend_on_their_company():
    v_BK, lower_BK = law.normal(0, 30, 5), 0.15 * torch.rand(30, 5, generator=law.generator(3)).double()
    safety_BK, polytope = law.normal(1, 30, 5), WeightPolytope(5, margin=0.01)
    together_BK = project(v_BK, polytope, safety=safety_BK, lower=lower_BK)
    for b in (0, 7, 29):
        alone_K = project(v_BK[b], polytope, safety=safety_BK[b], lower=lower_BK[b])
        assert torch.equal(alone_K, together_BK[b])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_score_is_named_and_spoils_no_other_row(bad):
    polytope = random_bounded(1, 4, "chain")
    v_BK = law.normal(0, 9, 4)
    good_BK = project(v_BK, polytope)
    v_BK[6, 2] = bad
    with pytest.raises(InvalidInput, match="at row 6, teacher 2"):
        project(v_BK, polytope)
    spoiled_BK = project(v_BK, polytope, check_finite=False)
    assert spoiled_BK[6].isnan().all()
    others = torch.arange(9) != 6
    assert torch.equal(spoiled_BK[others], good_BK[others])


THREE = WeightPolytope(3)
CHAINED = WeightPolytope(3, orderings=[(0, 1), (1, 2)], margin=0.1)
ROWS = [[0.5, 0.3, 0.2]] * 2
REFUSED = {
    "shape": (
        {"lower": [0.1, 0.2]},
        THREE,
        InvalidInput,
        r"`lower` has shape \(2,\); wanted \(2, 3\), to fit the scores",
    ),
    "text": ({"upper": "half"}, THREE, InvalidInput, "`upper` has dtype <U4; wanted real numbers"),
    "booleans": ({"upper": [True, True, True]}, THREE, InvalidInput, "`upper` has dtype bool; wanted real numbers"),
    "nan": ({"upper": [1, NAN := float("nan"), 1]}, THREE, InvalidInput, "`upper` holds nan at teacher 1; .* finite"),
    "infinite": (
        {"upper": [[1] * 3, [1, 1, float("inf")]]},
        THREE,
        InvalidInput,
        "`upper` holds inf at row 1, teacher 2",
    ),
    "negative": (
        {"lower": [[0] * 3, [0, -0.1, 0]]},
        THREE,
        InvalidInput,
        "`lower` holds -0.1 at row 1, teacher 1; .*below 0",
    ),
    "crossed": (
        {"lower": [[0] * 3, [0, 0, 0.5]], "upper": 0.4},
        THREE,
        InvalidInput,
        "`lower` holds 0.5 and `upper` 0.4 at row 1, teacher 2; lower must not be above upper. Swap them",
    ),
    "too much": (
        {"lower": [[0] * 3, [0.4, 0.4, 0.4]]},
        THREE,
        InfeasiblePolytope,
        "Row 1: No weights satisfy the rules: .*lower bounds take at least 1.2 .* Lower `lower`, by 0.2 in total",
    ),
    "too little": (
        {"upper": [[1] * 3, [0.3, 0.3, 0.3]]},
        THREE,
        InfeasiblePolytope,
        "Row 1: No weights satisfy the rules: .*upper bounds allow at most 0.9 .* Raise `upper`, by 0.1 in total",
    ),
    "order": (
        {"upper": [[1] * 3, [0.2, 1, 1]]},
        CHAINED,
        InfeasiblePolytope,
        r"Row 1: .* in order by margin=0.1, upper bounds allow at most 0.3 in total.*lower the margin",
    ),
    "no room": (
        {"lower": [[0] * 3, [0, 0, 0.3]], "upper": [[1] * 3, [0.4, 1, 1]]},
        CHAINED,
        InfeasiblePolytope,
        "Row 1: .* teacher 0 must weigh at least 0.5 and at most 0.4. Widen the bounds",
    ),
    "no room, general": (
        {"lower": [[0] * 3, [0, 0, 0.3]], "upper": [[1] * 3, [0.2, 1, 1]]},
        WeightPolytope(3, orderings=[(0, 2)], margin=0.1),
        InfeasiblePolytope,
        "Row 1: No weights satisfy the rules for 3 teachers. These conflict",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    options, polytope, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        project(ROWS, polytope, **options)


def test_an_infeasible_row_of_several_axes_is_named_by_its_place():
    safety = torch.zeros(2, 3, 3)
    safety[1, 2] = torch.tensor([1.0, 2.0, 3.0])
    message = (
        r"Row \(1, 2\), ordered by its `safety`: No weights satisfy the rules: with everyone in order by margin=0.2"
    )
    with pytest.raises(InfeasiblePolytope, match=message):
        project(torch.zeros(2, 3, 3), WeightPolytope(3, 0.3, 0.4, margin=0.2), safety=safety)
