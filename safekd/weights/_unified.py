"""Weights of three scales, composed and repaired (Definition IV.1).

    w_unified  =  normalise(w_token * w_task * w_context),  then projected

The product of conforming weights does not conform: it can break bounds and turn an ordering that both safety-aware
scales respect (token = context = (.40, .35, .25), task = (.20, .50, .30) gives (.286, .547, .167)).  So the
composed weights are projected into the polytope that the user asked for, with the orderings of S and C_safe.
Axes: ... positions, K teachers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from solvers.polytope import WeightPolytope

from ..errors import InvalidInput
from ._conforming import conform, normalised
from ._orderings import ordering_violations
from ._rule import Rule
from ._signals import Signals


@dataclass(frozen=True)
class Repair:
    """What the repair did to one batch.

    composed: product weights before, (..., K); weights: after; moved: Euclidean distance between them, (...);
    violations_before, violations_after: bool (...), where a safer teacher counts less at a critical position, which
    is any position if the signals name none (all False when the signals carry no safety).
    """

    composed: Tensor
    weights: Tensor
    moved: Tensor
    violations_before: Tensor
    violations_after: Tensor

    @property
    def repaired_fraction(self) -> float:
        """Share of positions that had to move by more than rounding."""
        slack = 8 * self.weights.shape[-1] * torch.finfo(self.weights.dtype).eps
        return float((self.moved > slack).double().mean())


@dataclass(frozen=True, kw_only=True)
class Unified:
    """Product of up to three rules, normalised, and repaired into ``polytope``; a missing scale is uniform.

    token, task, context: callables from Signals to scores (..., K), at least 0.  polytope, metric: where to, and
    in which geometry the nearest point is meant.  Raises InvalidInput when no scale is given.
    """

    polytope: WeightPolytope
    token: Rule | None = None
    task: Rule | None = None
    context: Rule | None = None
    metric: Literal["euclidean", "kl"] = "euclidean"

    def __post_init__(self) -> None:
        if not self._rules():
            raise InvalidInput("Unified has no scale; give at least one of token=, task=, context= (Uniform() counts).")

    def __call__(self, signals: Signals) -> Tensor:
        """Return conforming weights, (..., K)."""
        return conform(self.compose(signals), signals, self.polytope, self.metric)

    def compose(self, signals: Signals) -> Tensor:
        """Return the normalised product, (..., K), which need not conform.  Sums of logs: nothing underflows."""
        parts = [normalised(rule(signals), signals, name).log() for name, rule in self._rules().items()]
        log_w_K = torch.stack(parts).sum(0)
        if bool(torch.isneginf(log_w_K).all(-1).any()):
            where = tuple(int(i) for i in torch.isneginf(log_w_K).all(-1).nonzero()[0])
            raise InvalidInput(
                f"At position {where} every teacher has weight 0 at some scale, so the product leaves none. "
                "Make each rule conforming first, Conforming(rule, polytope) with lower > 0."
            )
        return torch.softmax(log_w_K, dim=-1)

    def repair(self, signals: Signals) -> Repair:
        """Return the weights together with what it took to make them conform."""
        composed = self.compose(signals)
        weights = conform(composed, signals, self.polytope, self.metric)
        none = torch.zeros(composed.shape[:-1], dtype=torch.bool, device=composed.device)
        before = after = none
        if signals.evidence is not None or "safety" in signals.__dict__:
            critical = signals.critical if signals.names_critical else ~none
            before = ordering_violations(composed, signals.safety, critical)
            after = ordering_violations(weights, signals.safety, critical)
        return Repair(composed, weights, (weights - composed).norm(dim=-1), before, after)

    def _rules(self) -> dict[str, Rule]:
        named = {"token rule": self.token, "task rule": self.task, "context rule": self.context}
        return {name: rule for name, rule in named.items() if rule is not None}
