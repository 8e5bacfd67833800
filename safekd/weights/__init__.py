"""Teacher weights: rules that score teachers, and the wrappers that make any rule conform.

    signals = Signals(log_p=log_p, labels=labels, context=context, evidence=evidence)
    EntropyDecay(rate=1.0)(signals)                         # raw scores, (..., K): no floor, no ordering
    Conforming(EntropyDecay(), polytope)(signals)           # the nearest weights that obey the polytope
    Unified(token=..., task=..., context=..., polytope=P)   # three scales: product, normalise, repair

A rule is any callable from signals to scores (..., K).  Which one should I choose?  ``EntropyDecay`` when
confident teachers are usually right, ``InverseLoss`` when you have measured their losses, ``OrdinalSafety`` where
safety ranks must show in the weights; ``Unified`` multiplies what you have.  ``orderings_from(evidence)`` keeps noise
from becoming an ordering; ``Tracking`` follows signals that change over time.
"""

from ._conforming import Conforming
from ._implied import Bounds, implied_bounds
from ._measured_orderings import Comparison, MeasuredOrderings, orderings_from
from ._orderings import ordering_violations
from ._rules import EntropyDecay, EntropyInverse, InverseLoss, OrdinalSafety, Uniform
from ._scale_orderings import ScaleOrderings
from ._signals import Evidence, Signals
from ._tracking import DriftReport, Tracking
from ._unified import Repair, Unified

__all__ = [
    "Bounds",
    "Comparison",
    "Conforming",
    "DriftReport",
    "EntropyDecay",
    "EntropyInverse",
    "Evidence",
    "InverseLoss",
    "MeasuredOrderings",
    "OrdinalSafety",
    "Repair",
    "ScaleOrderings",
    "Signals",
    "Tracking",
    "Unified",
    "Uniform",
    "implied_bounds",
    "ordering_violations",
    "orderings_from",
]
