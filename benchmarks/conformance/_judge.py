"""Judge answers of the projection row by row, from the problem alone.  Each fault is a mask of rows:

    value        a weight is not a finite number
    bound        a weight is outside its bounds, tightened along the orderings and rounded inwards to the dtype; no
                 tolerance, but where no number of the dtype lies inside, the nearest to the lower bound is right
    ordering     a teacher weighs less than one beneath; no tolerance, with a margin 2 ulp
    sum          the sum misses one by more than K ulp (K times the dtype's eps)
    linear row   a linear row is missed by more than ``WeightPolytope.check`` allows
    moved        the answer, projected again, moves further than it may
    twin         a row that was asked before has another answer, to the last bit

How far may an answer move?  It meets bounds and orderings, so only its sum is to be set right; and there all weights
move the same way, because the projection of scores less a threshold falls with the threshold, for each teacher.  So
no weight moves further than the sum does, but for the rounding of each: an ulp, for kl as many as the largest logarithm
of a weight says, because scores are held as logarithms.  Kinds that are ``to_the_bit`` do not move at all in float64,
Euclidean: weights that conform, with a sum right within K / 2 ulp, are returned as they are, and answers are such.
(In float32 their sum is right only as far as each weight is rounded.)  Linear rows break the argument: there a move may
be as large as what the row itself may be missed by.

What goes to cvxpy starts from what its back end proposes for all rows at once, so twins there may differ by K ulp.

Axes: B rows, K teachers, E orderings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from solvers.polytope import interval_within

from ._cases import KINDS, Problem, Rules
from ._scores import Floats

FAULTS = ("value", "bound", "ordering", "sum", "linear row", "moved", "twin")
Mask = npt.NDArray[np.bool_]

_MARGIN_ULPS = 2
_LINEAR = 1e-9
_TINY = 5e-324
_AS_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Judgement:
    """faults: for each of ``FAULTS`` the rows that have it, (B,).

    off: the worst sum's distance from one, in K ulp.  moved: the furthest move of a weight, in ulp.  kept: rows that
    kept every bit when projected again.
    """

    faults: dict[str, Mask]
    off: float
    moved: float
    kept: int

    @property
    def faulty(self) -> Mask:
        """Rows with any fault."""
        faulty_B: Mask = np.stack(list(self.faults.values())).any(axis=0)
        return faulty_B


def ask_again(problem: Problem, w_BK: Tensor) -> Tensor:
    """Return the projection of the answers; rows that cannot be asked, such as weights of 0 for kl, as they are."""
    usable_B = w_BK.isfinite().all(dim=-1)
    if problem.metric == "kl":
        usable_B &= (w_BK > 0).all(dim=-1)
    again_BK = w_BK.clone()
    again_BK[usable_B] = problem.rules.taken(usable_B.numpy().nonzero()[0]).project(w_BK[usable_B], problem.metric)
    return again_BK


def judge(problem: Problem, w_BK: Tensor, again_BK: Tensor) -> Judgement:
    """Judge answers w and what they became when projected again; both (B, K) in the dtype of the scores."""
    rules, eps = problem.rules, torch.finfo(w_BK.dtype).eps
    w, again = w_BK.double().numpy(), again_BK.double().numpy()
    K = w.shape[1]
    with np.errstate(invalid="ignore"):  # inf - inf is NaN, and NaN passes no test
        off_B, move_B = np.abs(w.sum(axis=1) - 1), np.abs(again - w).max(axis=1)
    bits_BK = _bits(w_BK)
    changed_B = (_bits(again_BK) != bits_BK).any(axis=1)
    faults = {
        "value": ~np.isfinite(w).all(axis=1),
        "bound": _outside(rules, w, w_BK.dtype),
        "ordering": _disordered(rules, w, eps),
        "sum": ~(off_B <= K * eps),
        "linear row": _misses_a_row(rules, w, eps),
        "moved": changed_B if _keeps_bits(problem) else ~(move_B <= _reach(problem, w, again, eps)),
        "twin": _differ_from_twins(problem, w, bits_BK),
    }
    return Judgement(faults, float(off_B.max() / (K * eps)), float(move_B.max() / eps), int((~changed_B).sum()))


def _bits(w_BK: Tensor) -> npt.NDArray[np.generic]:
    return w_BK.contiguous().view(_AS_INTEGER[w_BK.element_size()]).numpy()


def _outside(rules: Rules, w_BK: Floats, dtype: torch.dtype) -> Mask:
    own = zip((rules.lower, rules.upper), (rules.polytope.lower, rules.polytope.upper), strict=True)
    low_QK, high_QK = (np.array([shared]) if of_rows is None else of_rows.copy() for of_rows, shared in own)
    if rules.critical is None and not rules.polytope.margin:
        _tighten(low_QK, high_QK, rules.polytope.orderings)
    inside = interval_within(torch.from_numpy(low_QK), torch.from_numpy(high_QK), dtype)
    low_QK, high_QK = (bound_QK.double().numpy() for bound_QK in inside)
    return ~((w_BK >= low_QK) & (w_BK <= high_QK)).all(axis=1)


def _tighten(low_QK: Floats, high_QK: Floats, orderings: Sequence[tuple[int, int]]) -> None:
    """Raise lower bounds to those beneath, lower upper ones to those above, until nothing changes."""
    changed = True
    while changed:
        changed = False
        for above, below in orderings:
            low_Q, high_Q = low_QK[:, above].copy(), high_QK[:, below].copy()
            np.maximum(low_Q, low_QK[:, below], out=low_QK[:, above])
            np.minimum(high_Q, high_QK[:, above], out=high_QK[:, below])
            changed |= bool((low_Q != low_QK[:, above]).any() or (high_Q != high_QK[:, below]).any())


def _disordered(rules: Rules, w_BK: Floats, eps: float) -> Mask:
    polytope = rules.polytope
    if rules.rank is not None:
        rank_BK = np.broadcast_to(rules.rank, w_BK.shape)
        # ascending by rank, then weight: from one tier to the next the largest of a tier meets the smallest of the next
        sorted_BK = np.take_along_axis(w_BK, np.lexsort((w_BK, rank_BK)), axis=1)
        wrong_B = ~(np.diff(sorted_BK, axis=1) >= 0).all(axis=1)
    elif polytope.orderings:
        above_E, below_E = np.array(polytope.orderings).T
        excess_BE = w_BK[:, below_E] + polytope.margin - w_BK[:, above_E]
        wrong_B = ~(excess_BE <= (_MARGIN_ULPS * eps if polytope.margin else 0.0)).all(axis=1)
    else:
        return np.zeros(len(w_BK), dtype=bool)
    return wrong_B if rules.critical is None else wrong_B & rules.critical


def _misses_a_row(rules: Rules, w_BK: Floats, eps: float) -> Mask:
    missed_B = np.zeros(len(w_BK), dtype=bool)
    for excess_B, row_K in _excesses(rules, w_BK):
        missed_B |= ~(excess_B <= _residual(w_BK.shape[1], eps) * max(1.0, float(np.abs(row_K).max())))
    return missed_B


def _excesses(rules: Rules, w_BK: Floats) -> Iterator[tuple[Floats, Floats]]:
    linear = rules.polytope.linear
    for row, bound in zip(linear.A, linear.b, strict=True):
        yield w_BK @ np.array(row) - bound, np.array(row)
    for row, value in zip(linear.C, linear.d, strict=True):
        yield np.abs(w_BK @ np.array(row) - value), np.array(row)


def _residual(K: int, eps: float) -> float:
    return max(_LINEAR, K * eps)


def _differ_from_twins(problem: Problem, w_BK: Floats, bits_BK: npt.NDArray[np.generic]) -> Mask:
    if KINDS[problem.kind].cvxpy:
        apart_BK = np.abs(w_BK - w_BK[problem.first_B])
        return ~(apart_BK <= w_BK.shape[1] * torch.finfo(problem.v.dtype).eps).all(axis=1)
    different_B: Mask = (bits_BK != bits_BK[problem.first_B]).any(axis=1)
    return different_B


def _keeps_bits(problem: Problem) -> bool:
    return KINDS[problem.kind].to_the_bit and problem.metric == "euclidean" and problem.v.dtype == torch.float64


def _reach(problem: Problem, w_BK: Floats, again_BK: Floats, eps: float) -> Floats:
    """Return how far each row's weights may move, (B,)."""
    reach_B: Floats = np.abs(again_BK.sum(axis=1) - w_BK.sum(axis=1)) + eps
    if problem.metric == "kl":
        reach_B += eps * np.abs(np.log(np.maximum(w_BK, _TINY))).max(axis=1)
    if problem.rules.polytope.linear:
        reach_B += _residual(w_BK.shape[1], eps)
    return reach_B
