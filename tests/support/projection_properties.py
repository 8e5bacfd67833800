"""What every projection onto a weight polytope must satisfy, stated once and applied to each kind of polytope.

``reference`` is the judge: the same problem modelled again in cvxpy from the polytope's public fields, and given to
Clarabel with tight tolerances.  Scores must be of the size of weights there, or Clarabel loses its way.

Axes: B rows, K teachers.
"""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from solvers import WeightPolytope, project

TIGHT = {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def scores_for(metric: str, seed: int, *shape: int, spread: float = 1.0) -> Tensor:
    """Scores of the size of weights; positive for KL."""
    raw = normal(seed, *shape)
    return spread * raw if metric == "euclidean" else (spread * raw).exp()


def reference(v_BK: Tensor, polytope: WeightPolytope, metric: str = "euclidean") -> Tensor:
    """Project with cvxpy and Clarabel, sharing no code with the library."""
    K = polytope.n_teachers
    w_K, v_K = cp.Variable(K), cp.Parameter(K)
    size = 0.5 * cp.sum_squares(w_K) if metric == "euclidean" else -cp.sum(cp.entr(w_K))
    rules = [cp.sum(w_K) == 1, w_K >= np.array(polytope.lower), w_K <= np.array(polytope.upper)]
    rules += [w_K[i] >= w_K[j] + polytope.margin for i, j in polytope.orderings]
    if polytope.linear.b:
        rules.append(np.array(polytope.linear.A) @ w_K <= np.array(polytope.linear.b))
    if polytope.linear.d:
        rules.append(np.array(polytope.linear.C) @ w_K == np.array(polytope.linear.d))
    problem = cp.Problem(cp.Minimize(size - v_K @ w_K), rules)
    answers = []
    for scores_K in v_BK.numpy():
        v_K.value = scores_K if metric == "euclidean" else np.log(scores_K)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # asked for more digits than it has, Clarabel says so; status is read
            problem.solve(solver=cp.CLARABEL, **TIGHT)
        assert problem.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)
        answers.append(w_K.value)
    return torch.tensor(np.array(answers))


def random_polytope(seed: int, K: int, order: str) -> WeightPolytope:
    """Uniform bounds with room between them and no order, a chain or tiers."""
    random = np.random.default_rng(seed)
    lower = random.uniform(0, 0.9) / K
    upper = min(1.0, random.uniform(1.05, 4) / K)
    ranks = {"none": np.zeros(K), "chain": random.permutation(K), "tiers": random.integers(0, 3, K)}[order]
    return WeightPolytope(K, lower, upper).ordered_by(ranks.tolist())


def random_general_polytope(seed: int) -> WeightPolytope:
    """Own bounds, a partial order with or without margin and linear rows, all met by one random point."""
    random = np.random.default_rng(seed)
    K = int(random.integers(2, 9))
    inside_K = random.dirichlet(np.full(K, 2.0))
    pairs = [(i, j) for i in range(K) for j in range(K) if inside_K[i] > inside_K[j] and random.random() < 0.3]
    gaps = [float(inside_K[i] - inside_K[j]) for i, j in pairs]
    A_MK, C_MK = random.standard_normal((2, K)), random.standard_normal((int(K > 3), K))
    return WeightPolytope(
        K,
        inside_K * random.uniform(0, 1, K),
        np.minimum(1, inside_K * random.uniform(1, 3, K)),
        pairs,
        margin=min(gaps, default=0.0) * float(random.integers(0, 2)) * 0.5,
        linear=(A_MK, A_MK @ inside_K + 0.05, C_MK, C_MK @ inside_K) if K > 3 else (A_MK, A_MK @ inside_K),
    )


def assert_conforms(w: Tensor, polytope: WeightPolytope, **rows: Tensor) -> None:
    found = polytope.check(w, **rows)
    assert found.holds(), f"\n{found}"


def optimality_residual(w_K: Tensor, v_K: Tensor, polytope: WeightPolytope, metric: str) -> float:
    """How far -gradient(w) is from the cone of the rules that are tight at w, found by nonnegative least squares.

    Both costs are 1-strongly convex on the simplex (KL by Pinsker's inequality), so no conforming w with residual r is
    further than r from the optimum.  This judges KL answers more closely than Clarabel solves them (1e-7 to 1e-5).
    """
    K, unit, w = polytope.n_teachers, np.eye(polytope.n_teachers), w_K.numpy()
    rows = [(-unit[k], -polytope.lower[k]) for k in range(K)] + [(unit[k], polytope.upper[k]) for k in range(K)]
    rows += [(unit[j] - unit[i], -polytope.margin) for i, j in polytope.orderings]
    rows += [(np.array(a), b) for a, b in zip(polytope.linear.A, polytope.linear.b, strict=True)]
    equal = [np.ones(K)] + [np.array(c) for c in polytope.linear.C]
    tight = [a for a, b in rows if b - a @ w <= 1e-11]
    descent = v_K.numpy() - w if metric == "euclidean" else np.log(v_K.numpy()) - np.log(w)
    return float(nnls(np.array(tight + equal + [-c for c in equal]).T, descent)[1])


def assert_agrees_with_reference(polytope: WeightPolytope, v_BK: Tensor, metric: str, **options: str) -> None:
    """Conforming, within 1e-7 of the optimum by its own multipliers, and where Clarabel puts it."""
    w_BK = project(v_BK, polytope, metric=metric, **options)
    assert_conforms(w_BK, polytope)
    assert max(optimality_residual(w_K, v_K, polytope, metric) for w_K, v_K in zip(w_BK, v_BK, strict=True)) <= 1e-9
    as_close_as_clarabel = 1e-7 if metric == "euclidean" else 1e-4
    torch.testing.assert_close(w_BK, reference(v_BK, polytope, metric), atol=as_close_as_clarabel, rtol=0)


def assert_idempotent(polytope: WeightPolytope, v_BK: Tensor, metric: str) -> None:
    w_BK = project(v_BK, polytope, metric=metric)
    positive_B = (w_BK > 0).all(dim=-1) if metric == "kl" else torch.ones(len(w_BK), dtype=torch.bool)
    torch.testing.assert_close(project(w_BK[positive_B], polytope, metric=metric), w_BK[positive_B], atol=1e-13, rtol=0)


def assert_never_moves_points_apart(polytope: WeightPolytope, v_BK: Tensor, u_BK: Tensor) -> None:
    moved_B = (project(v_BK, polytope) - project(u_BK, polytope)).norm(dim=-1)
    assert (moved_B <= (v_BK - u_BK).norm(dim=-1) * (1 + 1e-12) + 1e-12).all()


def assert_shift_or_scale_changes_nothing(polytope: WeightPolytope, v_BK: Tensor, metric: str) -> None:
    """Euclidean: v + c has the projection of v.  KL: c v has."""
    w_BK = project(v_BK, polytope, metric=metric)
    for c in (1e-3, 7.0, 300.0):
        moved_BK = v_BK + c if metric == "euclidean" else v_BK * c
        torch.testing.assert_close(project(moved_BK, polytope, metric=metric), w_BK, atol=1e-12, rtol=0)


def assert_relabelling_teachers_relabels_weights(polytope: WeightPolytope, v_BK: Tensor, metric: str) -> None:
    K = polytope.n_teachers
    order = torch.randperm(K, generator=generator(5))
    place = {int(old): new for new, old in enumerate(order)}

    def columns(rows: tuple[tuple[float, ...], ...]) -> list[list[float]] | None:
        return [[row[k] for k in order] for row in rows] or None

    relabelled = WeightPolytope(
        K,
        [polytope.lower[k] for k in order],
        [polytope.upper[k] for k in order],
        [(place[i], place[j]) for i, j in polytope.orderings],
        polytope.margin,
        {
            "A": columns(polytope.linear.A),
            "b": polytope.linear.b or None,
            "C": columns(polytope.linear.C),
            "d": polytope.linear.d or None,
        },
    )
    expected_BK = project(v_BK, polytope, metric=metric)[:, order]
    torch.testing.assert_close(project(v_BK[:, order], relabelled, metric=metric), expected_BK, atol=1e-12, rtol=0)


def assert_differentiable_twice(polytope: WeightPolytope, v_BK: Tensor, metric: str, **options: object) -> None:
    leaf_BK = v_BK.clone().requires_grad_()

    def run(scores_BK: Tensor) -> Tensor:
        return project(scores_BK, polytope, metric=metric, **options)

    # a probing step smaller than the distance to the next kink, which random scores keep
    assert torch.autograd.gradcheck(run, (leaf_BK,), eps=1e-6, atol=1e-5)
    assert torch.autograd.gradgradcheck(run, (leaf_BK,), eps=1e-6, atol=1e-4)
