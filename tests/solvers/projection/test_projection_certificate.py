"""certify_projection(): passes what is optimal, refuses what is not, and its bound is a bound."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import InvalidInput, ProjectionCertificate, WeightPolytope, certify_projection, project
from tests.support import projection_properties as law

from .test_laws import KINDS, METRICS, scores

each_kind = pytest.mark.parametrize("kind", KINDS)
each_metric = pytest.mark.parametrize("metric", METRICS)
BOX = WeightPolytope(3, 0.1, 0.6)
NAN = float("nan")


@each_metric
@each_kind
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_projections_pass_at_every_scale(kind, metric, scale):
    v_BK = scores(kind, metric, seed=1, rows=8)
    if metric == "euclidean":
        # subtracting 1e6 from scores costs 1e-9 of a weight, which the bound owns to
        v_BK, sharp = v_BK * scale, 1e-13 + 1e-14 * scale
    else:
        v_BK, sharp = torch.cat([v_BK * scale, v_BK ** min(scale, 6.0)]), 1e-12
    certificate = certify_projection(v_BK, project(v_BK, KINDS[kind], metric=metric), KINDS[kind], metric=metric)
    assert certificate.holds(1e-12 if scale <= 1 else 1e-9), f"\n{certificate}"
    assert (certificate.distance_bound <= sharp).all()


@each_metric
def test_projections_onto_random_polytopes_pass(metric):
    for seed in range(30):
        polytope = law.random_general_polytope(seed)
        v_BK = law.scores_for(metric, seed, 4, polytope.n_teachers, spread=0.6)
        certificate = certify_projection(v_BK, project(v_BK, polytope, metric=metric), polytope, metric=metric)
        assert certificate.holds(1e-11), f"\n{certificate}"
        assert (certificate.distance_bound <= 1e-10).all()


@each_metric
@pytest.mark.parametrize("polytope", [BOX, WeightPolytope(3, 0.0, 0.7, margin=0.02), KINDS["own bounds"]])
def test_rows_follow_their_own_safety_and_mask(polytope, metric):
    K = polytope.n_teachers
    v = law.scores_for(metric, 2, 5, 8, K)
    safety = (2 * law.normal(3, 5, 8, K)).round() if K == 3 else torch.tensor([3.0, 2.0, 2.0, 1.0]).expand(5, 8, K)
    rows = {"critical": law.normal(4, 5, 8) > 0, "safety": safety}
    w = project(v, polytope, metric=metric, **rows)
    certificate = certify_projection(v, w, polytope, metric=metric, **rows)
    assert certificate.holds(1e-12), f"\n{certificate}"
    assert certificate.stationarity.shape == (5, 8)
    assert not certify_projection(v, w, polytope, metric=metric, safety=safety).holds()
    assert not certify_projection(v, w, polytope, metric=metric).holds()


def test_a_mask_lifts_the_orderings_of_the_polytope():
    polytope, v_BK = KINDS["chain"], scores("chain", "euclidean", seed=3)
    critical_B = torch.arange(len(v_BK)) % 2 == 0
    w_BK = project(v_BK, polytope, critical=critical_B)
    assert certify_projection(v_BK, w_BK, polytope, critical=critical_B).holds(1e-12)
    assert not certify_projection(v_BK, w_BK, polytope, critical=~critical_B).holds()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@each_kind
def test_short_floats_pass_at_their_own_tolerance(kind, dtype, tolerance):
    v_BK = scores(kind, "euclidean", seed=5).to(dtype)
    certificate = certify_projection(v_BK, project(v_BK, KINDS[kind]), KINDS[kind])
    assert certificate.holds(tolerance), f"\n{certificate}"
    assert not certificate.holds(1e-9)


def wrong_answers(v_BK, other_v_BK, polytope, metric):
    """Every way to be wrong: conforming but not nearest, not conforming, not a number, somebody else's."""
    w_BK = project(v_BK, polytope, metric=metric)
    other_BK = project(other_v_BK, polytope, metric=metric)
    clipped_BK = v_BK.clamp(torch.tensor(polytope.lower).double(), torch.tensor(polytope.upper).double())
    yield "conforming, not nearest", 0.9 * w_BK + 0.1 * other_BK
    yield "another row's", other_BK
    if metric == "euclidean" or polytope != KINDS["simplex"]:  # there, KL wants just that
        yield "clipped and renormalized", clipped_BK / clipped_BK.sum(dim=-1, keepdim=True)
    yield "off by a little", (1 - 1e-4) * w_BK + 1e-4 * other_BK
    yield "sum too large", w_BK * (1 + 1e-6)
    yield "order swapped", w_BK.flip(-1)
    yield "the scores themselves", v_BK
    yield "not a number", w_BK.clone().index_fill_(1, torch.tensor([1]), NAN)
    yield "infinite", w_BK.clone().index_fill_(1, torch.tensor([1]), float("inf"))


@each_metric
@each_kind
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_wrong_answers_are_refused(kind, metric, scale):
    polytope = KINDS[kind]
    v_BK = scores(kind, metric, seed=6) * scale
    true_BK = project(v_BK, polytope, metric=metric)
    # not scaled: small scores under a margin all have one answer
    for name, w_BK in wrong_answers(v_BK, v_BK.flip(0) / scale, polytope, metric):
        certificate = certify_projection(v_BK, w_BK, polytope, metric=metric)
        distance_B = (w_BK - true_BK).norm(dim=-1).numpy()
        changed_B = ~(distance_B <= 1e-8)
        assert changed_B.any(), name
        residual_B = np.max([certificate.stationarity, certificate.primal, certificate.complementarity], axis=0)
        assert not (residual_B[changed_B] <= 1e-9).any(), f"{name} passed\n{certificate}"
        assert not (certificate.distance_bound < distance_B - 1e-12).any(), name
        assert not certificate.holds()


def test_one_wrong_row_among_many_is_found_and_named():
    v = law.normal(7, 3, 50, 3)
    w = project(v, BOX)
    w[2, 17] = torch.tensor([0.6, 0.3, 0.1]) if w[2, 17, 0] < 0.5 else torch.tensor([0.1, 0.3, 0.6])
    certificate = certify_projection(v, w, BOX)
    assert {at.row for at in certificate.worst if at.condition != "primal" and at.value > 0} == {(2, 17)}
    assert "(2, 17)   teacher" in str(certificate)


def test_the_table_names_the_rule_that_is_broken():
    polytope = WeightPolytope(3, 0.1, 0.6, [(0, 2)])
    table = str(certify_projection([0.2, 0.3, 0.5], [0.2, 0.3, 0.5], polytope))
    assert "primal           0.3       ()        teacher 0 >= teacher 2" in table
    assert "teacher 1 weighs nan" in str(certify_projection([0.2, 0.3, 0.5], [0.2, NAN, 0.5], polytope))


def test_the_table_names_teachers_by_their_own_numbers():
    """Inside, teachers are sorted by safety; words to the user are not."""
    certificate = certify_projection([0.1, 0.3, 0.6], [0.1, 0.3, 0.6], BOX, safety=[5.0, 1.0, 3.0])
    assert next(at.where for at in certificate.worst if at.condition == "primal") == "teacher 0 >= teacher 2"
    w_K = project([0.1, 0.3, 0.6], BOX, safety=[5.0, 1.0, 3.0])
    assert "teacher 0 >= teacher 2" in certify_projection([0.1, 0.3, 0.6], w_K, BOX, safety=[5.0, 1.0, 3.0]).multipliers


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(0, 200),
    st.sampled_from(METRICS),
    st.sampled_from([1e-12, 1e-9, 1e-7, 1e-5, 1e-2, 1.0]),
    st.sampled_from(["inside", "anywhere", "one teacher"]),
    st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
)
def test_the_bound_bounds_the_distance(seed, metric, size, direction, spread):
    """Answers moved by a known amount, within the polytope or out of it: none is further off than the bound says."""
    polytope = law.random_general_polytope(seed % 40) if seed % 2 else KINDS[sorted(KINDS)[seed % len(KINDS)]]
    v_1K = law.scores_for(metric, seed, 1, polytope.n_teachers, spread=spread)
    true_1K = project(v_1K, polytope, metric=metric)
    other_1K = project(law.scores_for(metric, seed + 1, 1, polytope.n_teachers), polytope, metric=metric)
    step_1K = law.normal(seed, 1, polytope.n_teachers)
    if direction == "one teacher":
        step_1K[:, 1:] = 0
    w_1K = true_1K + size * (other_1K - true_1K if direction == "inside" else step_1K)
    certificate = certify_projection(v_1K, w_1K, polytope, metric=metric)
    assert certificate.distance_bound[0] >= float((w_1K - true_1K).norm()) - 1e-13
    if metric == "kl" and spread > 1:
        return  # multipliers may then hang on teachers that weigh less than the error; the bound is true but wide
    # and it is of use: of the size of the error, or its root where the error breaks a rule or KL sees it so
    assert certificate.distance_bound[0] <= 1e-6 + 60 * np.sqrt(size)


def test_the_bound_survives_polytopes_without_room():
    """One point only, and a face that rules force: the interior point and the used rules then coincide."""
    point = WeightPolytope(3, 1 / 3, 1 / 3)
    assert certify_projection([5.0, 0.0, -5.0], [1 / 3, 1 / 3, 1 / 3], point).distance_bound <= 1e-13
    off = certify_projection([5.0, 0.0, -5.0], [0.4, 0.3, 0.3], point)
    assert np.linalg.norm(np.array([0.4, 0.3, 0.3]) - 1 / 3) <= off.distance_bound <= 2
    forced = WeightPolytope(3, linear=([[1.0, 0, 0]], [0.0]))
    for metric in METRICS:
        w_K = project([0.5, 0.3, 0.1], forced, metric=metric)
        certificate = certify_projection([0.5, 0.3, 0.1], w_K, forced, metric=metric)
        assert certificate.holds(1e-12), f"\n{certificate}"
        assert certificate.distance_bound <= 1e-12
    assert certify_projection([0.3], [1.0], WeightPolytope(1)).holds(1e-15)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_multipliers_agree_with_cvxpy(unit):
    """Rules whose rows are independent have one multiplier each, in the units of the rule."""
    polytope = WeightPolytope(
        4, 0.05, [0.5, 0.6, 0.6, 0.6], [(1, 2)], linear=(unit * np.array([[0, 0, 1.0, 1.0]]), [0.3 * unit])
    )
    v_K = np.array([1.4, -0.1, 0.8, 0.5])
    w_K = cp.Variable(4)
    rules = {
        "weights must sum to 1": cp.sum(w_K) == 1,
        "upper=0.5 on teacher 0": w_K[0] <= 0.5,
        "teacher 1 >= teacher 2": w_K[2] - w_K[1] <= 0,
        "linear row 0 (A w <= b)": unit * (w_K[2] + w_K[3]) <= 0.3 * unit,
    }
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(w_K - v_K)), [*rules.values(), w_K >= 0.05])
    problem.solve(solver=cp.CLARABEL, **law.TIGHT)
    assert problem.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)
    certificate = certify_projection(v_K, project(v_K, polytope), polytope)
    carried = {name: float(rule.dual_value) for name, rule in rules.items() if abs(rule.dual_value) > 1e-7}
    assert len(carried) == 4
    assert certificate.multipliers.keys() == carried.keys()
    for name, y in carried.items():
        assert certificate.multipliers[name] == pytest.approx(y, rel=1e-5, abs=1e-6)


def test_degenerate_corners_pass():
    """More tight rules than dimensions: multipliers are not unique, and some choice of signs must be found."""
    polytope = WeightPolytope(4, 0.25, 1.0, [(0, 1), (1, 2), (2, 3), (0, 3)])
    for seed in range(5):
        v_K = law.normal(seed, 4)
        assert certify_projection(v_K, torch.full((4,), 0.25, dtype=torch.float64), polytope).holds(1e-12)


def test_kl_refuses_a_zero_where_weight_is_due():
    certificate = certify_projection([0.5, 0.3, 0.2], [0.6, 0.4, 0.0], WeightPolytope(3), metric="kl")
    assert np.isinf(certificate.stationarity)
    assert certificate.distance_bound >= np.linalg.norm([0.1, 0.1, 0.2])


def test_empty_batches_hold():
    certificate = certify_projection(torch.empty(0, 3), torch.empty(0, 3), BOX)
    assert isinstance(certificate, ProjectionCertificate)
    assert certificate.stationarity.shape == (0,)
    assert certificate.holds()


GOOD = [0.6, 0.3, 0.1]
REFUSED = {
    "nan": ([0.1, NAN, 0.3], GOOD, {}, "`v` holds nan at teacher 1; scores must be finite"),
    "kl": ([0.1, 0.0, 0.3], GOOD, {"metric": "kl"}, "metric='kl' needs positive scores"),
    "v shape": ([0.1, 0.2], GOOD, {}, r"`v` has shape \(2,\), but the polytope has 3 teachers"),
    "w shape": ([GOOD] * 2, GOOD, {}, r"`w` has shape \(3,\), but `v` has shape \(2, 3\); wanted weights for each"),
    "integers": (GOOD, torch.tensor([1, 0, 0]), {}, "`w` has dtype torch.int64; wanted a floating dtype"),
    "text": (GOOD, "weights", {}, "`w` must hold real weights; found str"),
    "metric": (GOOD, GOOD, {"metric": "l1"}, "`metric` must be one of"),
    "mask": (GOOD, GOOD, {"critical": [True, False]}, r"`critical` has shape \(2,\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    v, w, options, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        certify_projection(v, w, BOX, **options)


def test_a_polytope_is_asked_for():
    with pytest.raises(InvalidInput, match="`polytope` must be a WeightPolytope; found int"):
        certify_projection(GOOD, GOOD, 3)
