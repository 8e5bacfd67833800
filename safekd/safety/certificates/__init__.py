"""Certificates: what held-out data show of a student's safety.

    certify(student, constraint, held_out)                  # "safe" or "not_shown", with a bound that always holds
    certify(student, constraints, held_out)                 # several together, by Holm's correction
    certify(student, constraint, held_out, weights=w_N, largest_weight=4.0)     # the mix in use, by importance weights
    certificate.save("certificate.json"); Certificate.load("certificate.json")  # a changed digit is refused
    cases_needed(threshold=0.95, expected=0.98)             # how many cases to collect

In order: ``_group_evaluation`` asks the student, ``_clustered_values`` holds what it shows and picks a bound by
the kind of the data, ``_confidence_bounds`` has the bounds, ``_family_correction`` decides several constraints
together, ``_cases_needed`` counts what is missing, and ``_joint_certificates`` writes it all down.
"""

from ._cases_needed import cases_needed
from ._certificate_record import Certificate, CertifiedAverage
from ._clustered_values import ClusteredValues, bound_expectation
from ._confidence_bounds import (
    betting_lower_bound,
    bound_rows,
    clopper_pearson_lower_bound,
    empirical_bernstein_lower_bound,
    hoeffding_lower_bound,
    skew_adjusted_t_lower_bound,
)
from ._family_correction import Correction, Decision, decide_together
from ._group_evaluation import evaluate_groups
from ._joint_certificates import HeldOutValues, certify_together, certify_values
from ._safety_certificate import certify

__all__ = [
    "Certificate",
    "CertifiedAverage",
    "ClusteredValues",
    "Correction",
    "Decision",
    "HeldOutValues",
    "betting_lower_bound",
    "bound_expectation",
    "bound_rows",
    "cases_needed",
    "certify",
    "certify_together",
    "certify_values",
    "clopper_pearson_lower_bound",
    "decide_together",
    "empirical_bernstein_lower_bound",
    "evaluate_groups",
    "hoeffding_lower_bound",
    "skew_adjusted_t_lower_bound",
]
