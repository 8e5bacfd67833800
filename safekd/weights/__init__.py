"""Teacher weights: rules that score teachers, and the wrappers that make any rule conform.

    signals = Signals(log_p=log_p, labels=labels, context=context, evidence=evidence)
    EntropyDecay(rate=1.0)(signals)                         # raw scores, (..., K): no floor, no ordering
    Conforming(EntropyDecay(), polytope)(signals)           # the nearest weights that obey the polytope
    Unified(token=..., task=..., context=..., polytope=P)   # three scales: product, normalise, repair

A rule is any callable from signals to scores (..., K).  Which one should I choose?  ``EntropyDecay`` when
confident teachers are usually right, ``InverseLoss`` when you have measured their losses, ``OrdinalSafety`` where
safety ranks must show in the weights; ``Unified`` multiplies what you have.  ``family_a``, ``family_b`` and
``family_c`` are the three of Theorem V.2.

    token     EntropyDecay, EntropyInverse, EntropyComplement, InverseVariance, Confidence (labels), SafetyBlend
    task      InverseLoss, PerformanceSoftmax, GradientAlignment (labels, student), GradientMinNorm (student)
    context   OrdinalSafety, DomainDistance
    any       Uniform, MinDivergence (student)
"""

from ._any import MinDivergence, Uniform
from ._conforming import Conforming
from ._context import DomainDistance, OrdinalSafety
from ._families import family_a, family_b, family_c
from ._orderings import ordering_violations
from ._rule import Rule, WeightRule, looks_at_student, needs_labels, needs_of
from ._signals import Evidence, Signals
from ._task import GradientAlignment, GradientMinNorm, InverseLoss, PerformanceSoftmax
from ._token import Confidence, EntropyComplement, EntropyDecay, EntropyInverse, InverseVariance, SafetyBlend
from ._unified import Repair, Unified

__all__ = [
    "Confidence",
    "Conforming",
    "DomainDistance",
    "EntropyComplement",
    "EntropyDecay",
    "EntropyInverse",
    "Evidence",
    "GradientAlignment",
    "GradientMinNorm",
    "InverseLoss",
    "InverseVariance",
    "MinDivergence",
    "OrdinalSafety",
    "PerformanceSoftmax",
    "Repair",
    "Rule",
    "SafetyBlend",
    "Signals",
    "Unified",
    "Uniform",
    "WeightRule",
    "family_a",
    "family_b",
    "family_c",
    "looks_at_student",
    "needs_labels",
    "needs_of",
    "ordering_violations",
]
