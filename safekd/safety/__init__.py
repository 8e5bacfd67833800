"""Safety: what is measured, what is required, and what can be certified.

measure = TruthProbability(critical=[0])                  # f(p, y) in [0, 1] on critical classes
rule = SafetyConstraint("malignant", measure, at_least=0.95)
certify(student, rule, held_out)                          # one-sided bound: "safe" or "not shown"
PairedSums.of(values, contexts, binary=True).p_values()   # which teacher is safer, on the same examples
"""

from ._bounds import betting_lower_bound, clopper_pearson_lower_bound
from ._certificate import Certificate, certify, lower_bound
from ._constraint import SafetyConstraint
from ._measures import Recall, SafetyMeasure, TruthProbability
from ._paired import PairedSums, holm

__all__ = [
    "Certificate",
    "PairedSums",
    "Recall",
    "SafetyConstraint",
    "SafetyMeasure",
    "TruthProbability",
    "betting_lower_bound",
    "certify",
    "clopper_pearson_lower_bound",
    "holm",
    "lower_bound",
]
