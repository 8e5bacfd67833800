"""The problems of the conformance run: every kind of polytope, each with its share of the rows.

Axes: B rows, K teachers, E orderings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers import WeightPolytope, project

from ._scores import Floats, Integers, draw_scores

CLASSES = (1, 2, 3, 4, 5, 6, 8, 12, 16, 17, 32, 33, 64, 128, 256)
_METRICS = {"euclidean": 0.8, "kl": 0.2}
_DTYPES = {torch.float64: 0.4, torch.float32: 0.3, torch.bfloat16: 0.15, torch.float16: 0.15}

_MOST_NUMBERS, _MOST_ROWS = 1 << 17, 1 << 13  # in a chunk
_CVXPY_CLASSES = range(2, 9)
_CVXPY_KL = 0.02  # of the rows that go to cvxpy, kl has this much less: it has no batched back end

Random = np.random.Generator
Pairs = list[tuple[int, int]]


@dataclass(frozen=True)
class Rules:
    """A polytope, and what rows bring of their own.

    rank: where the orderings sort the teachers into tiers, their ranks: (K,), or (B, K) with one order a row, which is
    what ``safety`` is then given; None where ``polytope.orderings`` tells all.  lower, upper: bounds (B, K) in place of
    the polytope's, or None.  critical: rows to which orderings apply, (B,), or None for all.
    """

    polytope: WeightPolytope
    rank: Floats | None = None
    lower: Floats | None = None
    upper: Floats | None = None
    critical: npt.NDArray[np.bool_] | None = None

    def taken(self, rows: Integers) -> Rules:
        """Return the rules of some rows."""
        own = {name: value[rows] for name, value in self.of_rows.items()}
        return replace(self, **own)

    @property
    def of_rows(self) -> dict[str, npt.NDArray[np.generic]]:
        """What has one entry a row, by field."""
        fields = {"lower": self.lower, "upper": self.upper, "critical": self.critical}
        if self.rank is not None and self.rank.ndim == 2:
            fields["rank"] = self.rank
        return {name: value for name, value in fields.items() if value is not None}

    def project(self, v_BK: Tensor, metric: str) -> Tensor:
        """Return what the library answers."""
        options = {{"rank": "safety"}.get(name, name): torch.from_numpy(x) for name, x in self.of_rows.items()}
        return project(v_BK, self.polytope, metric=metric, **options)


@dataclass(frozen=True)
class Problem:
    """Rows to project.  first_B: the first row with the same question; the row itself if none comes before it."""

    kind: str
    metric: str
    rules: Rules
    v: Tensor
    first_B: Integers

    def row(self, b: int) -> Problem:
        """Return one row alone."""
        return replace(self, rules=self.rules.taken(np.array([b])), v=self.v[b : b + 1], first_B=np.zeros(1, dtype=int))


@dataclass(frozen=True)
class Kind:
    """A kind of polytope, drawn from a random generator, K and B.

    share: of all rows.  masked: how many of the polytopes get a mask of critical rows.  to_the_bit: whether theory says
    that in float64 a Euclidean answer, projected again, keeps every bit.  cvxpy: there is no exact path; such rows are
    few, and have 8 teachers at most.
    """

    draw: Callable[[Random, int, int], Rules]
    share: float
    masked: float = 0.0
    to_the_bit: bool = False
    cvxpy: bool = False


def _bounds(random: Random, K: int) -> tuple[float, float]:
    """Bounds for all teachers: often 0 and 1, sometimes 1/K, which leaves no choice."""
    lower = random.choice([0.0, random.uniform(0, 0.95) / K, 1 / K], p=[0.3, 0.65, 0.05])
    upper = random.choice([1.0, min(1.0, random.uniform(1.05, 4) / K), 1 / K], p=[0.3, 0.65, 0.05])
    return float(lower), float(upper)


def _free(random: Random, K: int, B: int) -> Rules:
    return Rules(WeightPolytope(K, *_bounds(random, K)))


def _ranked(random: Random, K: int, rank_K: Floats) -> Rules:
    return Rules(WeightPolytope(K, *_bounds(random, K)).ordered_by(rank_K.tolist()), rank_K)


def _chain(random: Random, K: int, B: int) -> Rules:
    return _ranked(random, K, random.permutation(K).astype(np.float64))


def _tiers(random: Random, K: int, B: int) -> Rules:
    return _ranked(random, K, random.integers(0, random.integers(2, 6), K).astype(np.float64))


def _own_tiers(random: Random, K: int, B: int) -> Rules:
    """Few levels in half of the rows, as many as teachers in the others."""
    few_BK, many_BK = random.integers(0, 3, (B, K)), random.standard_normal((B, K))
    return Rules(WeightPolytope(K, *_bounds(random, K)), np.where(random.random((B, 1)) < 0.5, few_BK, many_BK))


def _any_ranked(random: Random, K: int, B: int) -> Rules:
    draw: Callable[[Random, int, int], Rules] = (_chain, _tiers, _own_tiers)[random.integers(3)]
    return draw(random, K, B)


def _partial(random: Random, K: int, B: int) -> Rules:
    """One to two orderings a teacher on average, up to all of them where teachers are few."""
    above_E, below_E = np.nonzero(np.triu(random.random((K, K)) < min(1.0, random.uniform(1, 4) / K), 1))
    name_K = random.permutation(K).tolist()
    pairs = [(name_K[i], name_K[j]) for i, j in zip(above_E, below_E, strict=True)]
    return Rules(WeightPolytope(K, *_bounds(random, K), pairs))


def _inside(random: Random, K: int, B: int = 1) -> tuple[Floats, Floats, Floats]:
    """Return weights in falling order, (B, K), and bounds beneath and above them."""
    w_BK = -np.sort(-random.dirichlet(np.full(K, 2.0), B), axis=1)
    low_BK, high_BK = w_BK * random.uniform(0, 1, (B, K)), w_BK * random.uniform(1, 3, (B, K))
    return w_BK, low_BK, np.minimum(1.0, high_BK)


def _chain_or_none(random: Random, K: int) -> Pairs:
    return list(pairwise(range(K))) if random.random() < 0.5 else []


def _own_bounds(random: Random, K: int, B: int) -> Rules:
    _, (low_K,), (high_K,) = _inside(random, K)
    return Rules(WeightPolytope(K, low_K, high_K, _chain_or_none(random, K)))


def _bounds_of_rows(random: Random, K: int, B: int) -> Rules:
    _, low_BK, high_BK = _inside(random, K, B)
    return Rules(WeightPolytope(K, orderings=_chain_or_none(random, K)), lower=low_BK, upper=high_BK)


def _margin(random: Random, K: int, B: int) -> Rules:
    """A chain, or two tiers, that the mean of each keeps apart."""
    (w_K,), (low_K,), (high_K,) = _inside(random, K)
    if random.random() < 0.5:
        gap = float(-np.diff(w_K).max()) if K > 1 else 0.0
        return Rules(WeightPolytope(K, low_K, high_K, list(pairwise(range(K))), margin=0.9 * max(gap, 0.0)))
    top = max(1, K // 3)
    gap = float(w_K[:top].mean() - w_K[top:].mean()) if top < K else 0.0
    return Rules(WeightPolytope(K, orderings=[(i, j) for i in range(top) for j in range(top, K)], margin=0.9 * gap))


def _some_pairs(random: Random, K: int) -> Pairs:
    above_E, below_E = np.nonzero(np.triu(random.random((K, K)) < 0.3, 1))
    return [(int(i), int(j)) for i, j in zip(above_E, below_E, strict=True)]


def _partial_bounds(random: Random, K: int, B: int) -> Rules:
    _, (low_K,), (high_K,) = _inside(random, K)
    return Rules(WeightPolytope(K, low_K, high_K, _some_pairs(random, K)))


def _partial_margin(random: Random, K: int, B: int) -> Rules:
    (w_K,), _, _ = _inside(random, K)
    pairs = _some_pairs(random, K)
    least = min((float(w_K[i] - w_K[j]) for i, j in pairs), default=0.0)
    return Rules(WeightPolytope(K, orderings=pairs, margin=0.5 * least))


def _linear(random: Random, K: int, B: int) -> Rules:
    (w_K,), (low_K,), (high_K,) = _inside(random, K)
    A_2K, C_1K = random.standard_normal((2, K)), random.standard_normal((1, K))
    rows = {"A": A_2K, "b": A_2K @ w_K + 0.05}
    if K > 3:
        rows |= {"C": C_1K, "d": C_1K @ w_K}
    return Rules(WeightPolytope(K, low_K, high_K, _some_pairs(random, K), linear=rows))


KINDS = {
    "no order": Kind(_free, 0.15, to_the_bit=True),
    "chain": Kind(_chain, 0.18, to_the_bit=True),
    "tiers": Kind(_tiers, 0.14, to_the_bit=True),
    "own tiers": Kind(_own_tiers, 0.13, to_the_bit=True),
    "critical mask": Kind(_any_ranked, 0.12, masked=1.0, to_the_bit=True),
    "partial order": Kind(_partial, 0.13, masked=0.3),
    "own bounds": Kind(_own_bounds, 0.05, masked=0.3),
    "bounds of rows": Kind(_bounds_of_rows, 0.05, masked=0.3),
    "margin": Kind(_margin, 0.04, masked=0.3),
    "partial order, own bounds": Kind(_partial_bounds, 0.004, cvxpy=True),
    "partial order, margin": Kind(_partial_margin, 0.003, cvxpy=True),
    "linear rows": Kind(_linear, 0.003, masked=0.3, cvxpy=True),
}


@dataclass(frozen=True)
class Chunk:
    """A piece of the run, which can be drawn without the others."""

    kind: str
    metric: str
    dtype: torch.dtype
    K: int
    rows: int
    seed: tuple[int, int]

    def draw(self) -> Problem:
        """Return its rows and a polytope of its own."""
        random, kind = np.random.default_rng(self.seed), KINDS[self.kind]
        rules = kind.draw(random, self.K, self.rows)
        if random.random() < kind.masked:
            rules = replace(rules, critical=random.random(self.rows) < 0.7)
        v_BK, first_B = draw_scores(random, self.rows, rules.polytope, self.dtype, self.metric == "kl")
        return Problem(self.kind, self.metric, rules.taken(first_B), v_BK, first_B)


def plan(rows: int, seed: int, kinds: Sequence[str], classes: Sequence[int]) -> Iterator[Chunk]:
    """Yield chunks with so many rows in all; the more teachers, the fewer rows."""
    shares = dict(_cells(kinds, classes))
    edges = np.round(np.cumsum([0.0, *shares.values()]) / sum(shares.values()) * rows).astype(int)
    number = 0
    for cell, count in zip(shares, np.diff(edges).tolist(), strict=True):
        size = max(1, min(_MOST_ROWS, _MOST_NUMBERS // cell[-1]))
        for start in range(0, count, size):
            yield Chunk(*cell, min(size, count - start), (seed, number))
            number += 1


def _cells(kinds: Sequence[str], classes: Sequence[int]) -> Iterator[tuple[tuple[str, str, torch.dtype, int], float]]:
    for name in kinds:
        kind = KINDS[name]
        weights = {K: 1 / (K + 16) for K in classes if not kind.cvxpy or K in _CVXPY_CLASSES}
        for K, weight in weights.items():
            for metric, of_metric in _METRICS.items():
                few = _CVXPY_KL if kind.cvxpy and metric == "kl" else 1.0
                for dtype, of_dtype in _DTYPES.items():
                    yield (
                        (name, metric, dtype, K),
                        kind.share * weight / sum(weights.values()) * of_metric * few * of_dtype,
                    )
