"""Which orderings hold at each position of a batch.

A scale's order comes from pairs (``ScaleOrderings``), or else from safety scores: ``token_safety`` at the token scale,
``safety`` at the context scale.  The token scale's holds on S, the context scale's on C_safe; one mask ``critical``
stands for both, and where nothing is named critical both hold everywhere.  A scale that is alone in having an order has
it at all critical positions.  Orderings of the polytope hold at all critical positions and replace scores.

Where both scales have an order and rank two teachers differently, one wins and the other keeps what it can
(``reconcile_orderings``); orderings of the polytope stand with the winner's.
Axes: ... positions, B positions in one axis, K teachers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import torch
from torch import Tensor

from solvers.polytope import Pairs, WeightPolytope
from solvers.projection import project

from ...errors import InvalidInput
from ..signals import ORDERED_SCALES, OrderedScale, Signals
from ._scale_orderings import ScaleOrderings, reconcile_orderings

Metric = Literal["euclidean", "kl"]


class PositionOrderings(Protocol):
    """The orderings that hold at each position of a batch: a projection that keeps them, and a judge."""

    @property
    def contradicts(self) -> Tensor:
        """Where the scales disagree, bool (...)."""

    def project(self, w_K: Tensor, metric: Metric) -> Tensor:
        """Return the nearest weights in the polytope that keep each position's orderings.

        Args:
            w_K: Weights or scores, (..., K).
            metric: "euclidean" or "kl".

        Returns:
            Weights, (..., K).
        """

    def find_violations(self, w_K: Tensor) -> Tensor:
        """Say where weights break an ordering that holds there.

        Args:
            w_K: Weights, (..., K).

        Returns:
            Bool, (...); a weight that is not a number breaks an ordering.
        """


@dataclass(frozen=True)
class _OrderedByScores:
    """Each critical position follows its own scores; with scores of None, the orderings of the polytope."""

    polytope: WeightPolytope
    scores_K: Tensor | None
    critical: Tensor | None
    contradicts: Tensor

    def project(self, w_K: Tensor, metric: Metric) -> Tensor:
        if self.scores_K is None and not self.polytope.orderings:
            return project(w_K, self.polytope, metric=metric)
        return project(w_K, self.polytope, metric=metric, critical=self.critical, safety=self.scores_K)

    def find_violations(self, w_K: Tensor) -> Tensor:
        everywhere = torch.ones(w_K.shape[:-1], dtype=torch.bool, device=w_K.device)
        critical = everywhere if self.critical is None else self.critical
        if self.scores_K is not None:
            return find_ordering_violations(w_K, self.scores_K, critical)
        return _find_broken_pairs(w_K, self.polytope.orderings) & critical


@dataclass(frozen=True)
class _OrderedByPairs:
    """Position b has the orderings of ``polytopes[index[b]]``."""

    polytopes: tuple[WeightPolytope, ...]
    index: Tensor
    contradicts: Tensor

    def project(self, w_K: Tensor, metric: Metric) -> Tensor:
        w_BK, index_B = w_K.reshape(-1, w_K.shape[-1]), self.index.reshape(-1)
        if not len(w_BK):
            return w_K
        if metric == "kl" and not bool((w_K > 0).all()):
            project(w_K, self.polytopes[0].without_orderings(), metric=metric)  # refuses, by the position in the batch
        rows = [(index_B == g).nonzero().squeeze(-1) for g in range(len(self.polytopes))]
        parts = [project(w_BK[here], P, metric=metric) for here, P in zip(rows, self.polytopes, strict=True)]
        return torch.cat(parts)[torch.cat(rows).argsort()].reshape(w_K.shape)

    def find_violations(self, w_K: Tensor) -> Tensor:
        broken = torch.zeros_like(self.index, dtype=torch.bool)
        for g, polytope in enumerate(self.polytopes):
            broken |= (self.index == g) & _find_broken_pairs(w_K, polytope.orderings)
        return broken


def resolve_orderings(
    signals: Signals,
    polytope: WeightPolytope,
    own: Mapping[OrderedScale, ScaleOrderings],
    *,
    wins: OrderedScale = "context",
    scored: bool = True,
) -> PositionOrderings:
    """Return the orderings that hold at each position of a batch.

    Args:
        signals: Signals, with what is critical and how safe teachers are.
        polytope: Bounds, and orderings that hold at all critical positions; these replace safety scores.
        own: Pairs of a scale, which replace its safety scores.
        wins: Whose order holds where token and context scale disagree.
        scored: Whether scales without pairs follow safety scores.

    Returns:
        What projects onto the orderings and judges by them.

    Raises:
        MissingSignal: Labels or contexts are named critical, or needed to look pairs or scores up, and are not there.

    Source: axioms III.5 and III.22; Definition IV.1 for both scales together.
    """
    scored = scored and not polytope.orderings
    present: list[OrderedScale] = [s for s in ORDERED_SCALES if s in own or (scored and signals.has_safety(s))]
    if len(present) == 2 and signals.names_critical:
        present = [scale for scale in present if signals.names_critical_on(scale)]
    where = {scale: _locate_critical(signals, scale, alone=len(present) == 1) for scale in present}
    nowhere = torch.zeros(signals.shape[:-1], dtype=torch.bool, device=signals.device)
    if not any(scale in own for scale in present):
        scores = {scale: _read_scores(signals, scale) for scale in present}
        if len(present) == 2:
            return _rank_by_both_scores(polytope, scores, where, wins)
        critical = signals.critical if signals.names_critical and (present or polytope.orderings) else None
        return _OrderedByScores(polytope, scores[present[0]] if present else None, critical, nowhere)
    return _meet_scales(
        signals, polytope, {s: _tabulate_pairs(signals, s, own.get(s), polytope, where[s]) for s in present}, wins
    )


def _locate_critical(signals: Signals, scale: OrderedScale, alone: bool) -> Tensor:
    if not signals.names_critical:
        return torch.ones(signals.shape[:-1], dtype=torch.bool, device=signals.device)
    return signals.critical if alone else signals.critical_positions(scale)


def _read_scores(signals: Signals, scale: OrderedScale) -> Tensor:
    name = {"token": "token_safety", "context": "safety"}[scale]
    score_K: Tensor = getattr(signals, name)
    try:
        score_K = score_K.expand(signals.shape)
    except RuntimeError as cause:
        raise InvalidInput(
            f"`{name}` has shape {tuple(score_K.shape)}; wanted {tuple(signals.shape)}, (..., teachers)."
        ) from cause
    if bool(torch.isnan(score_K).any()):
        place = tuple(int(i) for i in torch.isnan(score_K).nonzero()[0])
        raise InvalidInput(
            f"`{name}` holds nan at position {place[:-1]}, teacher {place[-1]}; an unknown score cannot rank a "
            "teacher. Give it a number."
        )
    return score_K


def _count_below(score_K: Tensor) -> Tensor:
    """Return how many teachers each teacher stands above, (..., K): a rank that keeps ties."""
    below_K = torch.zeros_like(score_K, dtype=torch.int32)
    for other in score_K.unbind(-1):  # of few teachers a third of the time of all pairs at once
        below_K = below_K + (score_K > other.unsqueeze(-1))
    return below_K


def _rank_by_both_scores(
    polytope: WeightPolytope, scores: dict[OrderedScale, Tensor], where: dict[OrderedScale, Tensor], wins: OrderedScale
) -> PositionOrderings:
    """Rank by the winner's scores and decide its ties by the loser's: exactly both orders where they agree."""
    rank = {s: torch.where(where[s].unsqueeze(-1), _count_below(scores[s]), 0) for s in ORDERED_SCALES}
    loses = ORDERED_SCALES[1 - ORDERED_SCALES.index(wins)]
    K = polytope.n_teachers
    token_K, context_K = rank["token"], rank["context"]
    opposite_K = torch.zeros_like(token_K, dtype=torch.bool)
    for token, context in zip(token_K.unbind(-1), context_K.unbind(-1), strict=True):
        opposite_K = opposite_K | ((token_K > token.unsqueeze(-1)) & (context_K < context.unsqueeze(-1)))
    merged_K = (rank[wins] * K + rank[loses]).float()  # whole numbers below K^2
    return _OrderedByScores(polytope, merged_K, where["token"] | where["context"], opposite_K.any(-1))


@dataclass(frozen=True)
class _PairTable:
    """Distinct sets of pairs, and which of them holds at each position: ``pairs[index]``, (...)."""

    pairs: list[Pairs]
    index: Tensor


def _tabulate_pairs(
    signals: Signals, scale: OrderedScale, given: ScaleOrderings | None, polytope: WeightPolytope, where: Tensor
) -> _PairTable:
    """Return the orderings of one scale; entry 0 has none, and holds where the scale has no say."""
    if given is None:
        ranks_UK, index = torch.unique(
            _count_below(_read_scores(signals, scale)).reshape(-1, polytope.n_teachers), dim=0, return_inverse=True
        )
        pairs = [polytope.ordered_by(row).orderings for row in ranks_UK.tolist()]
        return _PairTable([(), *pairs], torch.where(where, index.reshape(where.shape) + 1, 0))
    if not given.by_group:
        return _PairTable([(), given.pairs()], where.long())
    key = signals.group_numbers(scale)
    last = given.numbers[-1] + 1  # stands for all numbers without pairs of their own, padding such as -100 too
    lookup = torch.ones(last + 1, dtype=torch.long, device=key.device)  # 1: the pairs that hold everywhere
    lookup[list(given.numbers)] = torch.arange(2, 2 + len(given.by_group), device=key.device)
    index = lookup[torch.where((key < 0) | (key > last), last, key)]
    return _PairTable([(), given.pairs(), *(given.pairs(g) for g in given.numbers)], torch.where(where, index, 0))


def _meet_scales(
    signals: Signals, polytope: WeightPolytope, tables: dict[OrderedScale, _PairTable], wins: OrderedScale
) -> PositionOrderings:
    """Give each distinct meeting of a token order and a context order its own polytope."""
    none = _PairTable([()], torch.zeros(signals.shape[:-1], dtype=torch.long, device=signals.device))
    token, context = tables.get("token", none), tables.get("context", none)
    critical = torch.full_like(none.index, bool(polytope.orderings))
    if polytope.orderings and signals.names_critical:
        critical = signals.critical.long()
    key = (token.index * len(context.pairs) + context.index) * 2 + critical
    met, index = torch.unique(key, return_inverse=True)
    meetings = []
    for number in met.tolist():
        t, c = divmod(number // 2, len(context.pairs))
        own = polytope.orderings if number % 2 else ()
        meetings.append(_meet_orderings(polytope, own, token.pairs[t], context.pairs[c], wins))
    contradicts = torch.tensor([disagree for _, disagree in meetings], dtype=torch.bool, device=signals.device)
    return _OrderedByPairs(tuple(each for each, _ in meetings), index, contradicts[index])


@lru_cache(maxsize=4096)
def _meet_orderings(
    polytope: WeightPolytope, own: Pairs, token: Pairs, context: Pairs, wins: OrderedScale
) -> tuple[WeightPolytope, bool]:
    """Return the polytope where both scales' orderings meet its own, and whether the scales disagree."""
    winner, loser = (context, token) if wins == "context" else (token, context)
    pairs, disagree = reconcile_orderings((*own, *winner), loser, polytope.n_teachers)
    if polytope.ties:  # circles mean that these teachers weigh the same
        pairs = (*own, *token, *context)
    return polytope.with_orderings(pairs), disagree


def _find_broken_pairs(w_K: Tensor, pairs: Pairs) -> Tensor:
    """Say where a pair is not kept, bool (...); a weight that is not a number breaks it, if there is any."""
    broken = torch.zeros(w_K.shape[:-1], dtype=torch.bool, device=w_K.device)
    for i, j in pairs:
        broken |= ~(w_K[..., i] >= w_K[..., j])
    return broken | torch.isnan(w_K).any(-1) if pairs else broken


def find_ordering_violations(w_K: Tensor, safety_K: Tensor, critical: Tensor) -> Tensor:
    """Say where a safer teacher counts less than a less safe one.  Judged exactly, without a tolerance.

    Args:
        w_K: Weights, (..., K).
        safety_K: Scores, (..., K), higher is safer.
        critical: Where it matters, bool, (...).

    Returns:
        Bool, (...); a weight that is not a number is a violation.

    Source: axioms III.5 and III.22.
    """
    safer_KK = safety_K.unsqueeze(-1) > safety_K.unsqueeze(-2)
    kept_KK = w_K.unsqueeze(-1) >= w_K.unsqueeze(-2)
    broken = (safer_KK & ~kept_KK).flatten(-2).any(-1)
    return (broken | torch.isnan(w_K).any(-1)) & critical
