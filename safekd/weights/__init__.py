"""Teacher weights: rules that score teachers, and the wrappers that make any rule conform.

    signals = Signals(log_p=log_p, labels=labels, context=context, evidence=evidence)
    EntropyDecay(rate=1.0)(signals)                         # raw scores, (..., K): no floor, no ordering
    Conforming(EntropyDecay(), polytope)(signals)           # the nearest weights that obey the polytope
    Unified(token=..., task=..., context=..., polytope=P)   # three scales: product, normalise, repair

A rule is any callable from signals to scores (..., K).  Which one should I choose?  ``EntropyDecay`` when
confident teachers are usually right, ``InverseLoss`` when you have measured their losses, ``OrdinalSafety`` where
safety ranks must show in the weights; ``Unified`` multiplies what you have.
"""

from ._conforming import Conforming
from ._orderings import ordering_violations
from ._rules import EntropyDecay, EntropyInverse, InverseLoss, OrdinalSafety, Uniform
from ._signals import Evidence, Signals
from ._unified import Repair, Unified

__all__ = [
    "Conforming",
    "EntropyDecay",
    "EntropyInverse",
    "Evidence",
    "InverseLoss",
    "OrdinalSafety",
    "Repair",
    "Signals",
    "Unified",
    "Uniform",
    "ordering_violations",
]
