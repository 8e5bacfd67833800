"""The problems that the projection benchmark poses, each with its data.

    chain    w_0 >= w_1 >= ... >= w_{K-1}, bounds 0.2/K and 2.5/K: pooled entries and clipped ones in each batch
    bounds   the same bounds, no order
    order    the chain, bounds 0 and 1, scores so close to 1/K that no bound binds: isotonic regression, then one shift
    dag      the same bounds, a random partial order

Axes: B rows, K teachers, M rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers import WeightPolytope

CASES = ("chain", "bounds", "order", "dag")


@dataclass(frozen=True)
class Case:
    """One problem: its name, the polytope, and the spread of its scores around 1/K."""

    name: str
    polytope: WeightPolytope
    spread: float
    seed: int = 0

    @property
    def K(self) -> int:  # noqa: N802 - the axis
        """The number of teachers."""
        return self.polytope.n_teachers

    def scores(self, B: int) -> tuple[Tensor, Tensor]:
        """Return scores and the weights of the sum whose gradient is asked, both (B, K), float64."""
        generator = torch.Generator().manual_seed(1000 * self.seed + self.K)
        v_BK = torch.randn(B, self.K, generator=generator, dtype=torch.float64)
        c_BK = torch.randn(B, self.K, generator=generator, dtype=torch.float64)
        return v_BK.mul_(self.spread / self.K).add_(1 / self.K), c_BK


def case_of(name: str, K: int, seed: int = 0) -> Case:
    """Return the problem of that name."""
    chain = [(k, k + 1) for k in range(K - 1)]
    lower, upper = 0.2 / K, min(1.0, 2.5 / K)
    if name == "chain":
        return Case(name, WeightPolytope(K, lower, upper, chain), 2.0, seed)
    if name == "bounds":
        return Case(name, WeightPolytope(K, lower, upper), 2.0, seed)
    if name == "order":
        return Case(name, WeightPolytope(K, orderings=chain), 0.1, seed)
    if name == "dag":
        return Case(name, WeightPolytope(K, lower, upper, random_order(K, seed)), 2.0, seed)
    raise ValueError(f"There is no case {name!r}; wanted one of {', '.join(CASES)}.")


def random_order(K: int, seed: int) -> list[tuple[int, int]]:
    """Return a random partial order without redundant pairs; each pair of a random ranking is taken with chance 0.3."""
    random = np.random.default_rng(seed)
    above_KK = np.triu(random.random((K, K)) < 0.3, 1)
    reach_KK = above_KK.copy()
    for k in range(K):
        reach_KK |= np.outer(reach_KK[:, k], reach_KK[k])
    through_KK = (reach_KK.astype(int) @ reach_KK.astype(int)) > 0
    names = random.permutation(K)
    return [(int(names[i]), int(names[j])) for i, j in zip(*np.nonzero(above_KK & ~through_KK), strict=True)]


def solver_rows(polytope: WeightPolytope) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the inequalities as rows w <= bounds, shapes (M, K) and (M,), without those that others imply.

    Uniform bounds need stating only for teachers with nobody above (upper) or beneath (lower): solvers run up to
    twice as fast on the shorter list.
    """
    unit_KK = np.eye(polytope.n_teachers)
    has_above = {j for _, j in polytope.orderings}
    has_beneath = {i for i, _ in polytope.orderings}
    rows, bounds = [], []
    for k in range(polytope.n_teachers):
        if k not in has_beneath:
            rows.append(-unit_KK[k])
            bounds.append(-polytope.lower[k])
        if k not in has_above:
            rows.append(unit_KK[k])
            bounds.append(polytope.upper[k])
    for i, j in polytope.orderings:
        rows.append(unit_KK[j] - unit_KK[i])
        bounds.append(0.0)
    return np.array(rows), np.array(bounds)
