"""Teacher weights: rules that score teachers, and the wrappers that make any rule conform.

    signals = Signals(log_p=log_p, labels=labels, context=context, evidence=evidence)
    EntropyDecay(rate=1.0)(signals)                         # raw scores, (..., K): no floor, no ordering
    Conforming(EntropyDecay(), polytope)(signals)           # the nearest weights that obey the polytope
    Unified(token=..., task=..., context=..., polytope=P)   # three scales: product, normalize, repair

In this order: ``signals`` reads a batch, ``rules`` and ``learned`` score teachers by it, ``orderings`` says who must
not count less than whom at each position, ``compose`` multiplies scores and projects.  A rule is any callable from
signals to scores (..., K).  Which one should I choose?  ``EntropyDecay`` when confident teachers are usually right,
``InverseLoss`` when you have measured their losses, ``OrdinalSafety`` where safety ranks must show in the weights;
``Unified`` multiplies what you have.  ``family_a``, ``family_b`` and ``family_c`` are the three of Theorem V.2.

    token     EntropyDecay, EntropyInverse, EntropyComplement, InverseVariance, Disagreement, Confidence (labels),
              SafetyBlend
    task      InverseLoss, PerformanceSoftmax, GradientAlignment (labels, student), GradientMinNorm (student)
    context   OrdinalSafety, DomainDistance
    any       Uniform, Routed (context or task): all weight to one teacher, MinDivergence (student), Stored (index):
              weights from a file
    learned   UncertaintyWeighting (task), MultiLevel (features), MetaTeacher, PolicyGradient (labels, student):
              modules, which ``ConstrainedTrainer`` trains beside the student

``RULES`` holds them by scale and name, as configurations spell it.  ``infer_orderings(evidence)`` keeps noise from
becoming an ordering; ``Tracking`` follows signals that change over time.
"""

from .compose import (
    Bounds,
    Conforming,
    DriftReport,
    Normalized,
    Repair,
    Tracking,
    Unified,
    bound_product,
    family_a,
    family_b,
    family_c,
)
from .learned import (
    LearnedRule,
    Learner,
    MetaTeacher,
    MultiLevel,
    PolicyGradient,
    StudentStep,
    UncertaintyWeighting,
    learned_rules,
)
from .orderings import (
    Comparison,
    MeasuredOrderings,
    PositionOrderings,
    ScaleOrderings,
    find_ordering_violations,
    infer_orderings,
)
from .rules import (
    RULES,
    SCALES,
    Rule,
    Scale,
    WeightRule,
    collect_modules,
    collect_needs,
    load_rule_state,
    looks_at_student,
    needs_labels,
    register_rule,
    require_rule,
    require_scores,
    rule_state,
    walk_rule,
)
from .rules._context_rules import DomainDistance, OrdinalSafety
from .rules._generic_rules import MinDivergence, Routed, Uniform
from .rules._stored_rule import Stored, require_stored_rows
from .rules._task_rules import GradientAlignment, GradientMinNorm, InverseLoss, PerformanceSoftmax
from .rules._token_rules import (
    Confidence,
    Disagreement,
    EntropyComplement,
    EntropyDecay,
    EntropyInverse,
    InverseVariance,
    SafetyBlend,
)
from .signals import Signals, TeacherEvidence, compute_disagreement, compute_variance

__all__ = [
    "RULES",
    "SCALES",
    "Bounds",
    "Comparison",
    "Confidence",
    "Conforming",
    "Disagreement",
    "DomainDistance",
    "DriftReport",
    "EntropyComplement",
    "EntropyDecay",
    "EntropyInverse",
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
    "Normalized",
    "OrdinalSafety",
    "PerformanceSoftmax",
    "PolicyGradient",
    "PositionOrderings",
    "Repair",
    "Routed",
    "Rule",
    "SafetyBlend",
    "Scale",
    "ScaleOrderings",
    "Signals",
    "Stored",
    "StudentStep",
    "TeacherEvidence",
    "Tracking",
    "UncertaintyWeighting",
    "Unified",
    "Uniform",
    "WeightRule",
    "bound_product",
    "collect_modules",
    "collect_needs",
    "compute_disagreement",
    "compute_variance",
    "family_a",
    "family_b",
    "family_c",
    "find_ordering_violations",
    "infer_orderings",
    "learned_rules",
    "load_rule_state",
    "looks_at_student",
    "needs_labels",
    "register_rule",
    "require_rule",
    "require_scores",
    "require_stored_rows",
    "rule_state",
    "walk_rule",
]
