"""Partial orders: two exact methods, all upper sets and a search, against cvxpy, each other, certificates and laws."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import comb

import numpy as np
import pytest
import torch

from solvers import InvalidInput, WeightPolytope, certify_projection, project
from solvers.polytope._partial_orders import covering_pairs
from solvers.projection._projection_orders import make_partial_order
from solvers.projection.exact.cpu_kernels._cpu_rows import project_on_cpu
from solvers.projection.exact.cpu_kernels.partial_orders import _upper_set_kernels
from solvers.projection.exact.cpu_kernels.partial_orders._forest_search import new_forest, snap_row_to_order
from solvers.projection.exact.cpu_kernels.partial_orders._upper_set_kernels import ROWS_TOGETHER, WIDEST
from solvers.projection.exact.cpu_kernels.partial_orders._upper_sets import list_all_upper_sets
from tests.support import projection_properties as law


def grid(rows: int, columns: int):
    places = [(i, j) for i in range(rows) for j in range(columns)]
    down = [(i * columns + j, (i + 1) * columns + j) for i, j in places if i + 1 < rows]
    return rows * columns, down + [(i * columns + j, i * columns + j + 1) for i, j in places if j + 1 < columns]


def crown(n: int):
    """As many above as below, each above all but its own."""
    return 2 * n, [(i, n + j) for i in range(n) for j in range(n) if i != j]


def fence(K: int):
    """0 > 1 < 2 > 3 < ..."""
    return K, [(k, k + 1) if k % 2 == 0 else (k + 1, k) for k in range(K - 1)]


def tree(K: int):
    return K, [((k - 1) // 2, k) for k in range(1, K)]


def one_pair(K: int):
    return K, [(K - 1, 0)]


def two_chains(n: int):
    return 2 * n, list(pairwise(range(n))) + list(pairwise(range(n, 2 * n)))


def diamonds(n: int):
    """Two side by side below one, below which one stands above the next two, n times."""
    return 3 * n + 1, [(3 * i + a, 3 * i + b) for i in range(n) for a, b in ((0, 1), (0, 2), (1, 3), (2, 3))]


ORDERS = {
    "grid": grid(4, 4),
    "crown": crown(5),
    "fence": fence(9),
    "long fence": fence(24),  # too many upper sets
    "tree": tree(15),
    "bushy tree": tree(40),  # too many upper sets
    "one pair": one_pair(9),
    "two chains": two_chains(4),
    "diamonds": diamonds(5),
}
each_order = pytest.mark.parametrize("name", ORDERS)
each_metric = pytest.mark.parametrize("metric", ["euclidean", "kl"])


def polytope_of(name: str) -> WeightPolytope:
    K, pairs = ORDERS[name]
    return WeightPolytope(K, 0.2 / K, min(1.0, 2.5 / K), pairs)


def random_dag(seed: int, K: int, density: float) -> WeightPolytope:
    random = np.random.default_rng(seed)
    places = random.permutation(K)
    pairs = [(int(places[a]), int(places[b])) for a in range(K) for b in range(a + 1, K) if random.random() < density]
    return WeightPolytope(K, random.uniform(0, 0.9) / K, min(1.0, random.uniform(1.1, 4) / K), pairs)


def by_search(monkeypatch: pytest.MonkeyPatch, *args, **options):
    with monkeypatch.context() as patch:
        patch.setattr(_upper_set_kernels, "list_all_upper_sets", lambda *_: None)
        return project(*args, **options)


def ties(seed: int, rows: int, K: int, distinct: int = 3):
    return torch.randint(0, distinct, (rows, K), generator=law.generator(seed)).double()


# --- the right answer


@each_metric
@pytest.mark.parametrize("K", range(2, 17))
def test_random_orders_agree_with_cvxpy(K, metric, monkeypatch):
    """360 problems a metric, with few orderings and many, by both methods."""
    for seed, density in enumerate([0.08, 0.2, 0.35, 0.6]):
        polytope = random_dag(100 * K + seed, K, density)
        v_BK = law.scores_for(metric, seed, 6, K, spread=2 / K)
        expected_BK = project(v_BK, polytope, metric=metric, engine="cvxpy")
        for w_BK in (
            project(v_BK, polytope, metric=metric, engine="exact"),
            by_search(monkeypatch, v_BK, polytope, metric=metric, engine="exact"),
        ):
            law.assert_conforms(w_BK, polytope)
            torch.testing.assert_close(w_BK, expected_BK, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("K", "density"), [(33, 0.2), (64, 0.1), (100, 0.05)])
def test_large_orders_agree_with_cvxpy(K, density):
    polytope = random_dag(K, K, density)
    v_BK = law.normal(K, 3, K) * 2 / K
    expected_BK = project(v_BK, polytope, engine="cvxpy")
    torch.testing.assert_close(project(v_BK, polytope, engine="exact"), expected_BK, atol=1e-12, rtol=0)


@each_metric
@pytest.mark.parametrize(("K", "density"), [(40, 0.3), (64, 0.15), (64, 0.5), (65, 0.5), (128, 0.1), (256, 0.02)])
def test_large_orders_are_certified(K, density, metric):
    polytope = random_dag(K, K, density)
    v_BK = law.scores_for(metric, K, 5, K, spread=2 / K if metric == "euclidean" else 0.5)
    w_BK = project(v_BK, polytope, metric=metric, engine="exact")
    law.assert_conforms(w_BK, polytope)
    certificate = certify_projection(v_BK, w_BK, polytope, metric=metric)
    assert certificate.holds(1e-9), f"\n{certificate}"


@each_metric
@each_order
def test_named_orders(name, metric, monkeypatch):
    polytope = polytope_of(name)
    v_BK = law.scores_for(metric, 1, 40, polytope.n_teachers, spread=2 / polytope.n_teachers)
    w_BK = project(v_BK, polytope, metric=metric, engine="exact")
    law.assert_conforms(w_BK, polytope)
    assert certify_projection(v_BK, w_BK, polytope, metric=metric).holds(1e-10)
    searched_BK = by_search(monkeypatch, v_BK, polytope, metric=metric)
    torch.testing.assert_close(w_BK, searched_BK, atol=1e-15, rtol=0)
    law.assert_relabelling_teachers_relabels_weights(polytope, v_BK, metric)


@each_metric
@each_order
def test_gradients_agree_with_cvxpy(name, metric, monkeypatch):
    polytope = polytope_of(name)
    K = polytope.n_teachers
    v_BK = law.scores_for(metric, 2, 4, K, spread=2 / K).requires_grad_()
    grad_BK = law.normal(3, 4, K)

    def slope(run, **options):
        return torch.autograd.grad(run(v_BK, polytope, metric=metric, **options), v_BK, grad_BK)[0]

    expected_BK = slope(project, engine="cvxpy")
    torch.testing.assert_close(slope(project), expected_BK, atol=1e-9, rtol=1e-9)
    searched_BK = slope(lambda *args, **options: by_search(monkeypatch, *args, **options))
    torch.testing.assert_close(searched_BK, expected_BK, atol=1e-9, rtol=1e-9)


@each_metric
def test_a_chain_given_as_a_partial_order(metric):
    K = 9
    chain = tuple(pairwise(range(K)))
    polytope = WeightPolytope(K, 0.02, 0.4, chain)
    v_BK = law.scores_for(metric, 0, 100, K, spread=0.4)
    found_BK, _ = project_on_cpu(v_BK, make_partial_order(chain, K), 0.02, 0.4, metric == "kl")
    torch.testing.assert_close(found_BK, project(v_BK, polytope, metric=metric), atol=4e-16, rtol=0)


# --- scores that are hard on the arithmetic


@each_metric
@each_order
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e4, 1e8])
def test_ties_conform_at_every_scale(name, metric, scale, monkeypatch):
    polytope = polytope_of(name)
    K = polytope.n_teachers
    tied_BK = torch.cat([ties(0, 60, K), ties(1, 60, K, 7) / 3, torch.full((1, K), 1 / 3), law.normal(2, 60, K)])
    v_BK = scale * tied_BK if metric == "euclidean" else scale * (tied_BK.abs() + 0.1)
    w_BK = project(v_BK, polytope, metric=metric)
    searched_BK = by_search(monkeypatch, v_BK, polytope, metric=metric)
    for found_BK in (w_BK, searched_BK):
        law.assert_conforms(found_BK, polytope)
    torch.testing.assert_close(w_BK, searched_BK, atol=4e-15 * K * max(1.0, scale), rtol=0)
    if metric == "euclidean":
        assert (project(w_BK, polytope) - w_BK).abs().max() <= 4e-16


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e3, 1e8])
@pytest.mark.parametrize("K", [4, 9, 33])
def test_random_orders_conform_with_ties_at_every_scale(K, scale, monkeypatch):
    for seed in range(3):
        polytope = random_dag(seed, K, 0.3)
        for v_BK in (scale * law.normal(seed, 300, K), scale * ties(seed, 300, K)):
            w_BK = project(v_BK, polytope)
            law.assert_conforms(w_BK, polytope)
            law.assert_conforms(by_search(monkeypatch, v_BK, polytope), polytope)
            assert (project(w_BK, polytope) - w_BK).abs().max() <= 4e-16


@each_metric
@pytest.mark.parametrize("K", [6, 23, 70, 200])
def test_blocks_that_tie_get_one_weight(K, metric):
    """Where the bounds leave no room but rounding, a threshold between equal blocks would part what is ordered."""
    for seed in range(40):
        polytope = random_dag(seed, K, 2.5 / K)
        lower, upper = (1 / K, 4 / K) if seed % 2 else (0.5 / K, 1 / K)
        v_1K = torch.full((1, K), 3.0 + seed, dtype=torch.float64)
        tight = polytope.with_bounds([lower] * K, [upper] * K)
        law.assert_conforms(project(v_1K, tight, metric=metric), tight)


@each_order
def test_rounding_noise_on_ties_conforms(name, monkeypatch):
    """Near ties are where rounding decides which upper set is best, and whether an edge is violated."""
    polytope = polytope_of(name)
    K = polytope.n_teachers
    v_BK = ties(3, 400, K) / 3 + 1e-16 * law.normal(4, 400, K)
    for w_BK in (project(v_BK, polytope), by_search(monkeypatch, v_BK, polytope)):
        law.assert_conforms(w_BK, polytope)
        assert certify_projection(v_BK, w_BK, polytope).holds(1e-12)


def in_rationals(v_K: torch.Tensor, polytope: WeightPolytope) -> list[float]:
    """Project one row without rounding: among all subsets, take the upper set of largest mean, again and again."""
    K, pairs = polytope.n_teachers, polytope.orderings
    v = [Fraction(score) for score in v_K.tolist()]
    subsets = [{k for k in range(K) if bits >> k & 1} for bits in range(1, 1 << K)]
    upper_sets = [chosen for chosen in subsets if all(i in chosen for i, j in pairs if j in chosen)]
    x, used = dict.fromkeys(range(K), Fraction(0)), set()
    while len(used) < K:
        steps = [chosen - used for chosen in upper_sets if used < chosen]
        mean, size = max((sum(v[k] for k in step) / len(step), len(step)) for step in steps)
        step = next(step for step in steps if len(step) == size and sum(v[k] for k in step) == mean * size)
        x.update(dict.fromkeys(step, mean))
        used |= step
    lower, upper = Fraction(polytope.lower[0]), Fraction(polytope.upper[0])

    def weights(tau: Fraction) -> list[Fraction]:
        return [min(max(x[k] - tau, lower), upper) for k in range(K)]

    tau = max(t for k in range(K) for t in (x[k] - lower, x[k] - upper) if sum(weights(t)) >= 1)
    free = sum(lower < x[k] - tau <= upper for k in range(K))
    return [float(w) for w in weights(tau + (sum(weights(tau)) - 1) / max(free, 1))]


@pytest.mark.parametrize("by", ["upper sets", "search"])
@pytest.mark.parametrize(("spread", "close"), [(0.0, 1e-15), (2 * WIDEST, 1e-13), (1e8, 1e-8)])
def test_scores_of_very_different_size(spread, close, by, monkeypatch):
    """Large scores beside small ones: weights that depend on small differences must not feel the large ones' rounding.

    A block that holds both has a mean as inexact as the large ones.
    """
    for seed, density in enumerate([0.1, 0.2, 0.3, 0.5] * 2):
        polytope = random_dag(seed, 8, density)
        v_BK = law.normal(seed, 4, 8) / 8
        v_BK[:, ::5] += spread * law.normal(seed + 50, 4, 8)[:, ::5].sign()
        w_BK = project(v_BK, polytope) if by == "upper sets" else by_search(monkeypatch, v_BK, polytope)
        law.assert_conforms(w_BK, polytope)
        expected_BK = torch.tensor([in_rationals(v_K, polytope) for v_K in v_BK], dtype=torch.float64)
        torch.testing.assert_close(w_BK, expected_BK, atol=close, rtol=0)


@pytest.mark.parametrize("top", [1e4, 1e8, 1e12])
def test_differences_beneath_a_large_score_keep_their_digits(top):
    """Fence 0 > 1 < 2 > 3: 0 stands far above and gets the upper bound; the others share the rest as if alone."""
    polytope = WeightPolytope(4, 0.05, 0.4, [(0, 1), (2, 1), (2, 3)])
    v_BK = 0.1 * law.normal(0, 200, 4)
    v_BK[:, 0] = top
    expected_BK = torch.tensor([in_rationals(v_K, polytope) for v_K in v_BK], dtype=torch.float64)
    torch.testing.assert_close(project(v_BK, polytope), expected_BK, atol=4e-16, rtol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_row_is_named_and_spoils_no_other(bad):
    polytope = polytope_of("grid")
    v_BK = law.normal(0, 3 * ROWS_TOGETHER + 5, 16)
    good_BK = project(v_BK, polytope)
    v_BK[40, 2] = bad
    with pytest.raises(InvalidInput, match="at row 40, teacher 2"):
        project(v_BK, polytope)
    spoiled_BK = project(v_BK, polytope, check_finite=False)
    assert spoiled_BK[40].isnan().all()
    others = torch.arange(len(v_BK)) != 40
    assert torch.equal(spoiled_BK[others], good_BK[others])


def test_a_score_that_kl_cannot_use_is_named():
    v_BK = law.scores_for("kl", 0, 50, 16)
    v_BK[33, 7] = -0.5
    with pytest.raises(InvalidInput, match="row 33, teacher 7"):
        project(v_BK, polytope_of("grid"), metric="kl")


def test_the_largest_floats():
    v_BK = torch.tensor([[1.7e308, -1.7e308, 1e300, 0.0], [-1.7e308, 1.7e308, 0.0, 1.7e308]], dtype=torch.float64)
    polytope = WeightPolytope(4, 0.05, 0.6, [(0, 2), (1, 2), (1, 3)])
    law.assert_conforms(project(v_BK, polytope), polytope)


@each_order
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_floats_conform(name, dtype):
    polytope = polytope_of(name)
    v_BK = law.normal(8, 100, polytope.n_teachers).to(dtype)
    w_BK = project(v_BK, polytope)
    assert w_BK.dtype == dtype
    law.assert_conforms(w_BK, polytope)


def test_a_row_has_the_same_weights_whatever_stands_beside_it():
    polytope = polytope_of("grid")
    v_BK = law.normal(9, 2 * ROWS_TOGETHER + 3, 16)
    v_BK[::7] *= 1e4  # rows that go one by one
    together_BK = project(v_BK, polytope)
    alone_BK = torch.cat([project(v_1K, polytope) for v_1K in v_BK.split(1)])
    assert torch.equal(together_BK, alone_BK)


# --- blocks


def test_teachers_that_only_tie_are_no_block():
    """Below one of their betters, 1 and 2 may tie, and then still move apart: no derivative joins them."""
    v_BK = law.normal(10, 500, 3)
    v_BK[:, 0] += 20  # nothing is pooled
    v_BK[:, 2] = v_BK[:, 1]
    _, block_BK = project_on_cpu(v_BK, make_partial_order(((0, 1), (0, 2)), 3), 0.0, 1.0, False)
    assert (block_BK[:, 1] != block_BK[:, 2]).all()
    pairs = ((0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6))  # blocks {1, 3, 4} and {2, 5, 6} tie
    v_BK = law.normal(11, 500, 7)
    v_BK[:, 0] += 9
    v_BK[:, 3:5] += v_BK[:, 1:2].abs() + 3
    v_BK[:, [2, 5, 6]] = v_BK[:, [1, 3, 4]]
    _, block_BK = project_on_cpu(v_BK, make_partial_order(pairs, 7), 0.0, 1.0, False)
    assert (block_BK[:, [1, 2]] == block_BK[:, [3, 5]]).any()
    assert (block_BK[:, [1, 3, 4]] != block_BK[:, [2, 5, 6]]).all()


@each_order
def test_blocks_share_a_weight_and_both_methods_find_the_same(name, monkeypatch):
    K, pairs = ORDERS[name]
    v_BK, order = law.normal(12, 80, K), make_partial_order(covering_pairs(tuple(pairs), K), K)
    w_BK, block_BK = project_on_cpu(v_BK, order, 0.0, 1.0, False)
    monkeypatch.setattr(_upper_set_kernels, "list_all_upper_sets", lambda *_: None)
    _, searched_BK = project_on_cpu(v_BK, order, 0.0, 1.0, False)
    same_BKK = block_BK[:, :, None] == block_BK[:, None, :]
    assert torch.equal(same_BKK, searched_BK[:, :, None] == searched_BK[:, None, :])
    assert (w_BK[:, :, None] == w_BK[:, None, :])[same_BKK].all()
    assert ((block_BK >= 0) & (block_BK < K)).all()


# --- the list of upper sets


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((5, []), 5),  # parts of one teacher each
        ((6, list(pairwise(range(6)))), 6),
        (grid(3, 4), comb(7, 3) - 1),  # lattice paths
        (fence(6), 20),  # a Fibonacci number less the empty set
        (crown(3), 17),
        (two_chains(4), 8),
        (one_pair(4), 4),
    ],
)
def test_every_upper_set_is_listed_once(order, expected):
    K, pairs = order
    sets = list_all_upper_sets(np.array(pairs, dtype=np.int64).reshape(-1, 2), K)
    assert sets is not None
    parts = list(zip(pairwise(sets.part_C1), pairwise(sets.list_C1), strict=True))
    found = set()
    for (first, end), (start, stop) in parts:
        for bits, size in zip(sets.bits_S[start:stop], sets.size_S[start:stop], strict=True):
            members = frozenset(int(sets.teacher_K[k]) for k in range(first, end) if bits >> (k - first) & 1)
            assert len(members) == size
            assert all(i in members for i, j in pairs if j in members)
            found.add(members)
    assert len(found) == len(sets.bits_S) == expected


def test_orders_with_too_many_upper_sets_or_too_long_parts_are_searched():
    def listed(K, pairs):
        return list_all_upper_sets(np.array(pairs, dtype=np.int64).reshape(-1, 2), K)

    assert listed(16, [(0, k) for k in range(1, 16)]) is None
    long = [*pairwise(range(63)), (61, 63)]  # a part of 64, whose last bit is the sign
    assert listed(64, long).bits_S.min() < 0
    assert listed(65, [*long, (61, 64)]) is None
    v_BK = law.normal(13, 40, 64)
    w_BK, _ = project_on_cpu(v_BK, make_partial_order(tuple(long), 64), 0.0, 1.0, False)
    assert certify_projection(v_BK, w_BK, WeightPolytope(64, orderings=long)).holds(1e-9)


def test_a_search_that_rounding_stopped_is_settled():
    """Values fall from the top down to the last bit, and a tree whose values differ is no block."""
    forest = new_forest(np.array([[0, 1], [1, 2], [1, 3]], dtype=np.int64), 4)
    forest.active_E[:] = True
    x_K = np.array([1.0, np.nextafter(1.0, 2), 1.0, 0.5])
    snap_row_to_order(forest, x_K)
    assert x_K.tolist() == [1.0, 1.0, 1.0, 0.5]
    assert forest.active_E.tolist() == [True, True, False]
