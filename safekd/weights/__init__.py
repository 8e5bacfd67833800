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
    learned   UncertaintyWeighting (task), MultiLevel (features), MetaTeacher, PolicyGradient (labels, student):
              modules, which ``ConstrainedTrainer`` trains beside the student

``orderings_from(evidence)`` keeps noise from becoming an ordering; ``Tracking`` follows signals that change over time.
"""

from ._any import MinDivergence, Uniform
from ._conforming import Conforming, Normalised
from ._context import DomainDistance, OrdinalSafety
from ._evidence import Evidence
from ._families import family_a, family_b, family_c
from ._implied import Bounds, implied_bounds
from ._learned import LearnedRule, Learner, StudentStep, learned_rules, load_rule_state, rule_state
from ._learned_meta import MetaTeacher
from ._learned_multilevel import MultiLevel
from ._learned_policy import PolicyGradient
from ._learned_uncertainty import UncertaintyWeighting
from ._measured_orderings import Comparison, MeasuredOrderings, orderings_from
from ._orderings import ordering_violations
from ._parts import modules_of
from ._rule import Rule as Rule
from ._rule import WeightRule, looks_at_student, needs_labels, needs_of, require_rule, require_scores
from ._scale_orderings import ScaleOrderings
from ._signals import Signals, variance_of
from ._task import GradientAlignment, GradientMinNorm, InverseLoss, PerformanceSoftmax
from ._token import Confidence, EntropyComplement, EntropyDecay, EntropyInverse, InverseVariance, SafetyBlend
from ._tracking import DriftReport, Tracking
from ._unified import Repair, Unified

__all__ = [
    "Bounds",
    "Comparison",
    "Confidence",
    "Conforming",
    "DomainDistance",
    "DriftReport",
    "EntropyComplement",
    "EntropyDecay",
    "EntropyInverse",
    "Evidence",
    "GradientAlignment",
    "GradientMinNorm",
    "InverseLoss",
    "InverseVariance",
    "LearnedRule",
    "Learner",
    "MeasuredOrderings",
    "MetaTeacher",
    "MinDivergence",
    "MultiLevel",
    "Normalised",
    "OrdinalSafety",
    "PerformanceSoftmax",
    "PolicyGradient",
    "Repair",
    "SafetyBlend",
    "ScaleOrderings",
    "Signals",
    "StudentStep",
    "Tracking",
    "UncertaintyWeighting",
    "Unified",
    "Uniform",
    "WeightRule",
    "family_a",
    "family_b",
    "family_c",
    "implied_bounds",
    "learned_rules",
    "load_rule_state",
    "looks_at_student",
    "modules_of",
    "needs_labels",
    "needs_of",
    "ordering_violations",
    "orderings_from",
    "require_rule",
    "require_scores",
    "rule_state",
    "variance_of",
]
