"""The three families of Theorem V.2, made conforming: what shows that the axioms do not settle the weights."""

from __future__ import annotations

from typing import Literal

from solvers.polytope import WeightPolytope

from ..rules._context_rules import DomainDistance, OrdinalSafety
from ..rules._task_rules import GradientAlignment, InverseLoss, PerformanceSoftmax
from ..rules._token_rules import EntropyDecay, InverseVariance, SafetyBlend
from ._unified import Unified

Metric = Literal["euclidean", "kl"]


def family_a(polytope: WeightPolytope, *, rate: float = 1.0, metric: Metric = "euclidean") -> Unified:
    """Return Family A, by entropy: ``exp(-rate H_k)``, ``1 / loss_k(t)``, and ranks of safety in the context.

    Args:
        polytope: What all weights conform to.
        rate: Of the entropy, at least 0, a nat.
        metric: "euclidean" or "kl".

    Source: Theorem V.2.
    """
    return Unified(
        polytope=polytope, metric=metric, token=EntropyDecay(rate), task=InverseLoss(), context=OrdinalSafety()
    )


def family_b(polytope: WeightPolytope, *, rate: float = 1.0, metric: Metric = "euclidean") -> Unified:
    """Return Family B, by variance: ``1 / var_k``, alignment of gradients, and ``exp(-rate d(c, domain_k))``.

    Args:
        polytope: What all weights conform to.
        rate: Of the distance, at least 0, one over its unit.
        metric: "euclidean" or "kl".

    Source: Theorem V.2.
    """
    return Unified(
        polytope=polytope,
        metric=metric,
        token=InverseVariance(),
        task=GradientAlignment(),
        context=DomainDistance(rate),
    )


def family_c(polytope: WeightPolytope, *, rate: float = 1.0, metric: Metric = "euclidean") -> Unified:
    """Return Family C, a hybrid: entropy and safety, a softmax of performance, and ``exp(-rate d(c, domain_k))``.

    Args:
        polytope: What all weights conform to.
        rate: Of the distance, at least 0, one over its unit.
        metric: "euclidean" or "kl".

    Source: Theorem V.2.
    """
    return Unified(
        polytope=polytope,
        metric=metric,
        token=SafetyBlend(),
        task=PerformanceSoftmax(),
        context=DomainDistance(rate),
    )
