"""project(): kinds of scores, masks, safety scores, engines, and what it refuses."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from solvers import InfeasiblePolytope, InvalidInput, SolverFailure, WeightPolytope, certify_projection, project
from tests.support import projection_properties as law

BOX = WeightPolytope(3, 0.1, 0.6)
CHAIN = WeightPolytope(3, 0.1, 0.6, [(0, 1), (1, 2)])
PARTIAL = WeightPolytope(3, 0.1, 0.6, [(0, 1)])
OWN = WeightPolytope(3, [0.1, 0.0, 0.05], [0.6, 0.5, 0.9])
OWN_PARTIAL = WeightPolytope(3, [0.1, 0.0, 0.05], [0.6, 0.5, 0.9], [(0, 1)])
each_polytope = pytest.mark.parametrize("polytope", [BOX, CHAIN, PARTIAL, OWN], ids=["box", "chain", "partial", "own"])
each_metric = pytest.mark.parametrize("metric", ["euclidean", "kl"])


def test_projection_conforms_where_clipping_and_renormalising_does_not():
    scores_K = torch.tensor([0.97, 0.02, 0.01], dtype=torch.float64)
    clipped_K = scores_K.clamp(0.1, 0.6)
    assert not BOX.check(clipped_K / clipped_K.sum()).holds()
    assert BOX.check(project(scores_K, BOX)).holds()


@each_metric
@each_polytope
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_conforms(dtype, polytope, metric):
    v_BK = law.scores_for(metric, 0, 40 if polytope.tiers else 4, 3).to(dtype)
    w_BK = project(v_BK, polytope, metric=metric)
    assert w_BK.dtype == dtype
    law.assert_conforms(w_BK, polytope)
    # the bounds hold as real numbers too, not only as numbers of the short type
    assert (w_BK.double() >= torch.tensor(polytope.lower, dtype=torch.float64)).all()
    assert (w_BK.double() <= torch.tensor(polytope.upper, dtype=torch.float64)).all()
    accurate_BK = project(v_BK.double(), polytope, metric=metric)
    torch.testing.assert_close(w_BK.double(), accurate_BK, atol=4 * torch.finfo(dtype).eps, rtol=0)


def test_arrays_give_arrays_and_lists_give_tensors():
    scores = [[0.9, 0.3, -1.0]]
    from_list, from_array = project(scores, BOX), project(np.array(scores, dtype=np.float32), BOX)
    assert isinstance(from_list, torch.Tensor)
    assert from_list.dtype == torch.float64
    assert isinstance(from_array, np.ndarray)
    assert from_array.dtype == np.float32
    np.testing.assert_allclose(from_array, from_list.numpy(), atol=1e-6)


@each_polytope
def test_any_leading_shape(polytope):
    v = law.normal(0, 2, 3, 3)
    rows = project(v.reshape(-1, 3), polytope)
    torch.testing.assert_close(project(v, polytope), rows.reshape(2, 3, 3), atol=0, rtol=0)
    torch.testing.assert_close(project(v[0, 0], polytope), rows[0], atol=1e-14, rtol=0)
    crossed = law.normal(1, 3, 4).T
    torch.testing.assert_close(project(crossed, polytope), project(crossed.contiguous(), polytope), atol=0, rtol=0)
    for shape in ((0, 3), (2, 0, 3)):
        assert project(torch.empty(shape), polytope).shape == shape


@each_metric
def test_one_teacher(metric):
    for polytope in (WeightPolytope(1), WeightPolytope(1, linear=([[1.0]], [1.0]))):
        assert project(torch.tensor([[0.3], [7.0]]), polytope, metric=metric).tolist() == [[1.0], [1.0]]


@each_metric
@pytest.mark.parametrize("settings", [{"lower": 1 / 3}, {"upper": 1 / 3}, {"lower": 1 / 3, "upper": 1 / 3}])
def test_bounds_that_leave_one_point(settings, metric):
    polytope = WeightPolytope(3, **settings)
    w_BK = project(law.scores_for(metric, 1, 20, 3), polytope, metric=metric)
    law.assert_conforms(w_BK, polytope)
    torch.testing.assert_close(w_BK, torch.full_like(w_BK, 1 / 3), atol=1e-15, rtol=0)


def test_scores_are_left_untouched():
    v_BK = law.normal(0, 5, 3)
    before_BK = v_BK.clone()
    for polytope in (BOX, CHAIN, OWN):
        project(v_BK, polytope)
    assert torch.equal(v_BK, before_BK)


def test_the_largest_floats():
    """Finite masks such as finfo.min stand for 'never'."""
    v_BK = torch.tensor([[torch.finfo(torch.float32).min, 0.3, 0.2], [3e38, 3e38, -3e38]])
    for polytope in (BOX, CHAIN):
        law.assert_conforms(project(v_BK, polytope), polytope)
    torch.testing.assert_close(project(v_BK, BOX)[0], torch.tensor([0.1, 0.5, 0.4]))


@each_metric
@pytest.mark.parametrize("polytope", [CHAIN, PARTIAL, WeightPolytope(3, 0.1, 0.6, [(0, 1)], margin=0.1)])
def test_orderings_apply_to_critical_rows_only(polytope, metric):
    v_BK = law.scores_for(metric, 2, 2, 6, 3)
    critical_B = law.normal(3, 2, 6) > 0
    w_BK = project(v_BK, polytope, metric=metric, critical=critical_B)
    law.assert_conforms(w_BK, polytope, critical=critical_B)
    inside, outside = w_BK[critical_B], w_BK[~critical_B]
    torch.testing.assert_close(inside, project(v_BK[critical_B], polytope, metric=metric), atol=1e-12, rtol=0)
    torch.testing.assert_close(outside, project(v_BK[~critical_B], BOX, metric=metric), atol=1e-12, rtol=0)


@each_metric
def test_masks_are_differentiable(metric):
    v_BK = law.scores_for(metric, 2, 4, 3, spread=0.5)
    law.assert_differentiable_twice(PARTIAL, v_BK, metric, critical=torch.tensor([True, False, True, False]))


@each_metric
@pytest.mark.parametrize("polytope", [BOX, OWN, WeightPolytope(3, 0.0, 0.7, margin=0.02)], ids=["box", "own", "margin"])
def test_each_row_follows_its_own_safety(polytope, metric):
    v_BK = law.scores_for(metric, 4, 15, 3)
    safety_BK = (2 * law.normal(5, 15, 3)).round()
    w_BK = project(v_BK, polytope, metric=metric, safety=safety_BK)
    law.assert_conforms(w_BK, polytope, safety=safety_BK)
    for v_K, scores_K, w_K in zip(v_BK, safety_BK, w_BK, strict=True):
        alone_K = project(v_K, polytope.ordered_by(scores_K.tolist()), metric=metric)
        torch.testing.assert_close(w_K, alone_K, atol=1e-12, rtol=0)


def test_one_safety_vector_for_all_rows_and_a_mask():
    v_BK, safety_K = law.normal(6, 8, 3), torch.tensor([0.1, 0.9, 0.5])
    critical_B = torch.arange(8) % 2 == 0
    ordered_BK, free_BK = project(v_BK, BOX.ordered_by(safety_K.tolist())), project(v_BK, BOX)
    for engine in ("auto", "cvxpy"):
        w_BK = project(v_BK, BOX, safety=safety_K, critical=critical_B, engine=engine)
        expected_BK = torch.where(critical_B[:, None], ordered_BK, free_BK)
        torch.testing.assert_close(w_BK, expected_BK, atol=1e-12, rtol=0)


def test_tied_safety_leaves_teachers_free():
    w_K = project([0.3, 0.5, 0.2], WeightPolytope(3), safety=[1.0, 1.0, 0.0])
    torch.testing.assert_close(w_K, torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64))


def test_gradient_of_scores_that_only_tie():
    """Without an order, equal scores are no kink: each moves on its own."""
    v_K = torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
    slope_KK = torch.autograd.functional.jacobian(lambda v: project(v, WeightPolytope(2)), v_K)
    torch.testing.assert_close(slope_KK, torch.tensor([[0.5, -0.5], [-0.5, 0.5]], dtype=torch.float64))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-1e8, 1e8), min_size=1, max_size=9),
    st.lists(st.integers(0, 2), min_size=9, max_size=9),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_any_scores_conform_and_stay(values, ranks, low, high):
    K = len(values)
    polytope = WeightPolytope(K, low / K, (1 + high * (K - 1)) / K).ordered_by(ranks[:K])
    w_K = project(values, polytope)
    law.assert_conforms(w_K, polytope)
    torch.testing.assert_close(project(w_K, polytope), w_K, atol=1e-13, rtol=0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(1e-8, 1e8), min_size=1, max_size=9),
    st.lists(st.integers(0, 2), min_size=9, max_size=9),
    st.floats(0, 1),
)
@example([31580642.0, 5.960464477539063e-08], [0] * 9, 0.0)  # a weight that rounds up to the whole
def test_any_positive_scores_conform_in_kl(values, ranks, low):
    K = len(values)
    polytope = WeightPolytope(K, low / K, 1.0).ordered_by(ranks[:K])
    law.assert_conforms(project(values, polytope, metric="kl"), polytope)


def test_threads_share_compiled_problems():
    v_BK = law.normal(7, 6, 3)
    expected_BK = project(v_BK, PARTIAL)
    answers: list[torch.Tensor] = []
    workers = [threading.Thread(target=lambda: answers.append(project(v_BK, PARTIAL))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(answers) == 4
    assert all(torch.equal(answer_BK, expected_BK) for answer_BK in answers)


def test_kl_keeps_out_of_teachers_that_rules_force_to_zero():
    polytope = WeightPolytope(3, linear=([[1.0, 0.0, 0.0]], [0.0]))
    v_K = torch.tensor([0.5, 0.3, 0.1], dtype=torch.float64, requires_grad=True)
    w_K = project(v_K, polytope, metric="kl")
    torch.testing.assert_close(w_K.detach(), torch.tensor([0.0, 0.75, 0.25], dtype=torch.float64))
    (slope_K,) = torch.autograd.grad(w_K[1], v_K)
    torch.testing.assert_close(slope_K, torch.tensor([0.0, 0.75 * 0.25 / 0.3, -0.75 * 0.25 / 0.1], dtype=torch.float64))


def test_kl_weights_may_underflow_to_zero():
    pairs = [(0, 2), (0, 4), (1, 5), (1, 6), (2, 7), (3, 7), (4, 6), (5, 7)]
    polytope = WeightPolytope(8, orderings=pairs, margin=0.01688118798873045)
    v_1K = 1413.2898510056293 * torch.tensor([[2.0, 2.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    v_1K[0, 4] = 5e-324
    w_1K = project(v_1K, polytope, metric="kl")
    law.assert_conforms(w_1K, polytope)
    assert certify_projection(v_1K, w_1K, polytope, metric="kl").holds(1e-9)


def test_solver_failure_names_both_and_the_next_move(monkeypatch):
    from solvers.projection.general.backends import _cvxpy_backend

    monkeypatch.setattr(_cvxpy_backend.CvxpyModel, "_try", lambda self, solver, options: "ended as infeasible")
    with pytest.raises(SolverFailure, match=r"CLARABEL ended as infeasible; SCS ended as infeasible.*common scale"):
        project([0.9, 0.3, 0.1], OWN_PARTIAL, metric="kl")  # the metric that only cvxpy solves


NAN, INF = float("nan"), float("inf")
with warnings.catch_warnings(action="ignore"):  # torch calls nested tensors a prototype
    RAGGED = torch.nested.nested_tensor([torch.ones(3), torch.ones(2)])
REFUSED = {
    "nan": ([[0.1, 0.2, 0.3], [0.1, NAN, 0.3]], BOX, {}, r"`v` holds nan at row 1, teacher 1; scores must be finite"),
    "inf": ([0.1, 0.2, -INF], BOX, {}, "`v` holds -inf at teacher 2"),
    "deep row": (np.full((2, 2, 3), NAN), BOX, {}, r"at row \(0, 0\), teacher 0"),
    "wrong K": ([0.1, 0.2], BOX, {}, r"`v` has shape \(2,\), but the polytope has 3 teachers"),
    "scalar": (torch.tensor(1.0), BOX, {}, r"`v` has shape \(\)"),
    "integers": (torch.tensor([1, 2, 3]), BOX, {}, "`v` has dtype int64; wanted float64, float32, bfloat16 or float16"),
    "integer array": (np.array([1, 2, 3]), BOX, {}, "`v` has dtype int64"),
    "text": ("scores", BOX, {}, "`v` must hold real scores; found str"),
    "kl zero": (
        [[0.5, 0.0, 0.5]],
        BOX,
        {"metric": "kl"},
        "`v` holds 0 at row 0, teacher 1; metric='kl' needs positive",
    ),
    "metric": ([0.1, 0.2, 0.3], BOX, {"metric": "l1"}, "`metric` must be one of 'euclidean', 'kl'; found 'l1'"),
    "engine": (
        [0.1, 0.2, 0.3],
        BOX,
        {"engine": "fast"},
        "`engine` must be one of 'auto', 'exact', 'cvxpy'; found 'fast'",
    ),
    "polytope": ([0.1, 0.2, 0.3], 3, {}, "`polytope` must be a WeightPolytope; found int"),
    "both orders": (
        [0.1, 0.2, 0.3],
        CHAIN,
        {"safety": [1, 2, 3]},
        "the polytope has 2 orderings of its own.*drop `safety`",
    ),
    "safety nan": ([0.1, 0.2, 0.3], BOX, {"safety": [1, NAN, 3]}, "`safety` holds nan at teacher 1; an unknown score"),
    "mask elsewhere": (
        [[0.1, 0.2, 0.3]],
        CHAIN,
        {"critical": torch.ones(1, dtype=torch.bool, device="meta")},
        r"`critical` is on meta, but `v` is on cpu. Put both on one device: critical.to\(v.device\)",
    ),
    "sparse": (torch.eye(3).to_sparse(), BOX, {}, r"`v` has layout torch.sparse_coo; wanted a dense tensor.*to_dense"),
    "nested": (RAGGED, BOX, {}, r"`v` has rows of several lengths \(nested\); wanted a dense tensor of numbers"),
    "meta": (torch.ones(3, device="meta"), BOX, {}, r"`v` has no numbers \(device meta\); wanted a dense tensor"),
    "safety text": (
        [0.1, 0.2, 0.3],
        BOX,
        {"safety": ["a", "b", "c"]},
        "`safety` is a list: .*'a'; wanted real numbers",
    ),
    "safety sparse": (
        [0.1, 0.2, 0.3],
        BOX,
        {"safety": torch.ones(3).to_sparse()},
        r"`safety` has layout torch.sparse_coo; wanted a dense tensor, as safety.to_dense\(\) gives it",
    ),
    "bounds text": ([0.1, 0.2, 0.3], BOX, {"lower": "small"}, "`lower` has dtype <U5; wanted real numbers"),
    "bounds shape": (
        [[0.1, 0.2, 0.3]] * 2,
        BOX,
        {"lower": torch.zeros(3, 3)},
        r"`lower` has shape \(3, 3\); wanted \(2, 3\), to fit the scores",
    ),
    "mask text": (
        [[0.1, 0.2, 0.3]],
        CHAIN,
        {"critical": ["yes"]},
        "`critical` has dtype <U3; wanted booleans, True where",
    ),
    "safety elsewhere": ([0.1, 0.2, 0.3], BOX, {"safety": torch.ones(3, device="meta")}, "`safety` is on meta"),
    "bounds elsewhere": ([0.1, 0.2, 0.3], BOX, {"lower": torch.zeros(3, device="meta")}, "`lower` is on meta"),
    "safety shape": ([0.1, 0.2, 0.3], BOX, {"safety": [1, 2]}, r"`safety` has shape \(2,\); wanted \(3,\)"),
    "mask dtype": ([[0.1, 0.2, 0.3]], CHAIN, {"critical": [1]}, "`critical` has dtype torch.int64; wanted booleans"),
    "mask shape": ([[0.1, 0.2, 0.3]], CHAIN, {"critical": [True] * 2}, r"`critical` has shape \(2,\); wanted \(1,\)"),
    "exact own": (
        [0.1, 0.2, 0.3],
        OWN_PARTIAL,
        {"engine": "exact"},
        "no path for a polytope with bounds that differ and orderings that do not rank all teachers. Use engine='auto'",
    ),
    "exact tier": (
        [0.1, 0.2, 0.3],
        OWN,
        {"engine": "exact", "safety": [1, 1, 0]},
        "bounds that differ between teachers of one tier, beside other tiers",
    ),
    "exact margin": (
        [0.1, 0.2, 0.3],
        WeightPolytope(3, orderings=[(0, 1)], margin=0.1),
        {"engine": "exact"},
        "with margin=0.1 and orderings that do not rank all teachers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    v, polytope, options, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        project(v, polytope, **options)


@pytest.mark.parametrize("name", ["safety", "lower", "critical"])
def test_only_scores_are_mapped_by_vmap(name):
    """One polytope is planned for all rows, so what says which rows are alike has to be seen."""
    polytope = CHAIN if name == "critical" else BOX
    mapped = torch.tensor([True, False]) if name == "critical" else torch.zeros(2, 3)
    with pytest.raises(InvalidInput, match=f"`{name}` is mapped by torch.func.vmap; only `v` can be. Pass all rows"):
        torch.func.vmap(lambda v_K, part: project(v_K, polytope, **{name: part}))(torch.rand(2, 3), mapped)


def test_exact_refuses_linear_rows():
    polytope = WeightPolytope(3, orderings=[(0, 1)], margin=0.1, linear=([[1.0, 0, 0]], [0.5]))
    with pytest.raises(InvalidInput, match=r"with linear rows\. Use engine='auto'"):
        project([0.1, 0.2, 0.3], polytope, engine="exact")


def test_a_safety_order_that_leaves_no_weights_is_named():
    with pytest.raises(InfeasiblePolytope, match="Row 1, ordered by its `safety`: No weights satisfy"):
        project([[0.1, 0.2, 0.3]] * 2, WeightPolytope(3, 0.3, 0.4, margin=0.2), safety=[[0, 0, 0], [1, 2, 3]])


def test_unchecked_nan_gives_nan():
    """Without the look at the values, a bad row shows in the answer."""
    assert project(torch.tensor([NAN, 0.2, 0.3]), BOX, check_finite=False).isnan().any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each_metric
@each_polytope
def test_a_gpu_gives_the_same_weights(polytope, metric):
    v_BK = law.scores_for(metric, 8, 20, 3)
    w_BK = project(v_BK.cuda(), polytope, metric=metric)
    assert w_BK.is_cuda
    law.assert_conforms(w_BK, polytope)
    torch.testing.assert_close(w_BK.cpu(), project(v_BK, polytope, metric=metric), atol=1e-14, rtol=0)
