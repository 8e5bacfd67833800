"""Any rule, made conforming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from solvers.polytope import WeightPolytope
from solvers.projection import project

from ..errors import InvalidInput
from ._rule import Rule
from ._signals import Signals


@dataclass(frozen=True)
class Conforming:
    """``rule`` followed by normalisation and projection into ``polytope``: axioms III.1-3 and III.5 by construction.

    rule: any callable from Signals to scores (..., K), at least 0 and not all 0 at one position.
    polytope: bounds and orderings.  Orderings that it names hold at critical positions (everywhere if the signals
    name no critical class or context).  If it names none and ``ordered`` is True, each critical position follows
    its own safety scores.  metric: "euclidean" or "kl".
    """

    rule: Rule
    polytope: WeightPolytope
    metric: Literal["euclidean", "kl"] = "euclidean"
    ordered: bool = True

    @property
    def scale(self) -> str:
        """The scale of the rule inside."""
        return str(getattr(self.rule, "scale", "any"))

    def __call__(self, signals: Signals) -> Tensor:
        """Return conforming weights, (..., K)."""
        raw_K = normalised(self.rule(signals), signals, type(self.rule).__name__)
        return conform(raw_K, signals, self.polytope, self.metric, self.ordered)


def normalised(score_K: Tensor, signals: Signals, who: str) -> Tensor:
    """Return scores divided by their sum, (..., K).  Raises InvalidInput naming the rule and the position."""
    if score_K.shape != signals.shape:
        raise InvalidInput(
            f"{who} gave scores of shape {tuple(score_K.shape)}; wanted {tuple(signals.shape)}, (..., teachers)."
        )
    total = score_K.sum(-1, keepdim=True)
    bad = ~torch.isfinite(score_K).all(-1) | (score_K < 0).any(-1) | (total.squeeze(-1) <= 0)
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        raise InvalidInput(
            f"{who} gave scores {score_K[where].tolist()} at position {where}; wanted finite scores of at least 0, "
            "not all 0. Check the teachers' outputs there."
        )
    return score_K / total


def conform(
    w_K: Tensor, signals: Signals, polytope: WeightPolytope, metric: Literal["euclidean", "kl"], ordered: bool = True
) -> Tensor:
    """Project weights with the orderings that hold at each position, (..., K)."""
    follows_scores = ordered and not polytope.orderings and _has_safety(signals)
    if not follows_scores and not polytope.orderings:
        return project(w_K, polytope, metric=metric)
    critical = signals.critical if signals.names_critical else None
    return project(w_K, polytope, metric=metric, critical=critical, safety=signals.safety if follows_scores else None)


def _has_safety(signals: Signals) -> bool:
    return signals.evidence is not None or "safety" in signals.__dict__
