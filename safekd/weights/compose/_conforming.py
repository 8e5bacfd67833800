"""Any rule, made conforming."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.polytope import WeightPolytope

from ...errors import InvalidInput
from ..orderings import Metric, PositionOrderings, ScaleOrderings, require_compatible_orderings, resolve_orderings
from ..rules import Rule, RuleWrapper, require_rule, require_scores
from ..signals import Signals
from ._product_bounds import Bounds


@dataclass(frozen=True)
class Conforming(RuleWrapper):
    """``rule`` followed by normalization and projection into ``polytope``: axioms III.1-3 and III.5 by construction.

    Attributes:
        rule: Any callable from Signals to scores (..., K), at least 0 and not all 0 at one position.
        polytope: Bounds and orderings.  Orderings that it names hold at critical positions (everywhere if the signals
            name no critical class or context).
        metric: "euclidean" or "kl".
        ordered: Whether each critical position follows its own safety scores, if the polytope names no orderings.
        orderings: Those of one scale, for instance ``infer_orderings(evidence)``; they replace that scale's safety
            scores.

    Raises:
        InvalidInput: The orderings contradict the polytope's.
        InfeasiblePolytope: They leave no weights.
    """

    rule: Rule
    polytope: WeightPolytope
    metric: Metric = "euclidean"
    ordered: bool = True
    orderings: ScaleOrderings | None = None

    def __post_init__(self) -> None:
        require_rule("rule", self.rule)
        require_compatible_orderings(self.polytope, [] if self.orderings is None else [("`orderings`", self.orderings)])

    @property
    def bounds(self) -> Bounds:
        """Lower and upper bound of each teacher's weight."""
        return self.polytope.lower, self.polytope.upper

    def __call__(self, signals: Signals) -> Tensor:
        """Return conforming weights, (..., K).

        Args:
            signals: The signals of a batch.
        """
        raw_K = normalize_scores(self.rule(signals), signals, type(self.rule).__name__)
        return self.orders(signals).project(raw_K, self.metric)

    def orders(self, signals: Signals) -> PositionOrderings:
        """Return the orderings that hold at each position.

        Args:
            signals: The signals of a batch.
        """
        own = {} if self.orderings is None else {self.orderings.scale: self.orderings}
        return resolve_orderings(signals, self.polytope, own, scored=self.ordered)


@dataclass(frozen=True)
class Normalized(RuleWrapper):
    """``rule`` followed by division by the sum, and nothing else: weights as the rule wants them, axiom III.1 only.

    Attributes:
        rule: Any callable from Signals to scores (..., K).
    """

    rule: Rule

    def __post_init__(self) -> None:
        require_rule("rule", self.rule)

    def __call__(self, signals: Signals) -> Tensor:
        """Return weights, (..., K), that sum to one.

        Args:
            signals: The signals of a batch.
        """
        return normalize_scores(self.rule(signals), signals, type(self.rule).__name__)


def normalize_scores(score_K: Tensor, signals: Signals, who: str) -> Tensor:
    """Return scores divided by their sum; where a position does not count, what cannot be divided becomes all alike.

    Args:
        score_K: Scores, (..., K), at least 0.
        signals: What the rule was given.
        who: What messages call the rule.

    Returns:
        Weights, (..., K).

    Raises:
        InvalidInput: Scores are below 0, not finite, or all 0; the message names the rule and the position.
    """
    require_scores(score_K, signals, who)
    total = score_K.sum(-1, keepdim=True)
    plain_K = score_K.detach()  # the least of numbers with a NaN among them is NaN, and no comparison holds
    bad = ~((plain_K.amin(-1) >= 0) & (plain_K.amax(-1) < torch.inf) & (total.squeeze(-1) > 0))
    if signals.mask is not None:
        score_K = score_K.masked_fill((bad & ~signals.mask).unsqueeze(-1), 1.0)
        total, bad = score_K.sum(-1, keepdim=True), bad & signals.mask
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        raise InvalidInput(
            f"{who} gave scores {score_K[where].tolist()} at position {where}; wanted finite scores of at least 0, "
            "not all 0. Check the teachers' outputs there."
        )
    return score_K / total
