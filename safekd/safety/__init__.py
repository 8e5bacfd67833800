"""Safety: what is measured, what is required, and what can be certified.

    measure = TruthProbability(critical=[0])                      # f(p, y) in [0, 1] on critical classes
    constraint = SafetyConstraint("malignant", measure, at_least=0.95)
    in_use = SafetyConstraint("in use", measure, 0.95, mix={0: 0.4, 1: 0.6}, worst=KLBall(0.05))    # contexts as in use
    constraints = constrain_each_context("recall", Recall([0]), 0.9, contexts=[0, 1])               # one each
    Budget("harm", [(5.0, Recall([0])), (1.0, Recall([1]))], at_most=0.3)                           # one for all
    certify(student, constraint, held_out)                        # one-sided bound: "safe" or "not_shown"
    cases_needed(0.95, expected=0.98)                             # before there are data: 181 cases would show it
    PairedSums.from_values(values, contexts, binary=True).p_values()    # which teacher is safer, on the same examples

A ``SafetyMeasure`` reads one position; an ``Average`` reads it over groups of examples, by sums that batches and ranks
add up; a ``Constraint`` compares averages with a threshold; ``certify`` bounds them on held-out data.

Which measure?  ``TruthProbability`` and ``UnsafeMass`` are linear in the distribution, the easiest to train and to
reason about; ``LogTruthProbability`` is the first, for vocabularies of thousands; ``Margin`` and ``OneMinusBrier`` are
concave; ``Recall``, ``TopK``, ``Avoids`` and ``Counted``, for an event of one's own, count, and are trained through
surrogates; ``Calibration`` wants ``exactly=0.5``; ``Custom`` is anything else.  ``MEASURES`` holds those that
configurations name.
"""

from ._constraint_per_group import constrain_each_class, constrain_each_context, constrain_each_task
from ._custom_measure import Counted, Custom
from ._group_average import Average, GroupSums
from ._harm_budget import Budget
from ._mix_balls import Ball, ChiSquareBall, KLBall
from ._paired_comparison import PairedSums, adjust_p_values, adjust_pair_p_values
from ._probability_measures import Calibration, LogTruthProbability, Margin, OneMinusBrier, TruthProbability, UnsafeMass
from ._rate_measures import Avoids, Recall, TopK
from ._safety_constraint import Constraint, SafetyConstraint
from ._safety_measure import MEASURES, SafetyMeasure, register_measure
from .certificates import (
    Certificate,
    CertifiedAverage,
    ClusteredValues,
    Correction,
    HeldOutValues,
    betting_lower_bound,
    bound_expectation,
    bound_rows,
    cases_needed,
    certify,
    certify_together,
    certify_values,
    clopper_pearson_lower_bound,
    empirical_bernstein_lower_bound,
    evaluate_groups,
    hoeffding_lower_bound,
    skew_adjusted_t_lower_bound,
)

__all__ = [
    "MEASURES",
    "Average",
    "Avoids",
    "Ball",
    "Budget",
    "Calibration",
    "Certificate",
    "CertifiedAverage",
    "ChiSquareBall",
    "ClusteredValues",
    "Constraint",
    "Correction",
    "Counted",
    "Custom",
    "GroupSums",
    "HeldOutValues",
    "KLBall",
    "LogTruthProbability",
    "Margin",
    "OneMinusBrier",
    "PairedSums",
    "Recall",
    "SafetyConstraint",
    "SafetyMeasure",
    "TopK",
    "TruthProbability",
    "UnsafeMass",
    "adjust_p_values",
    "adjust_pair_p_values",
    "betting_lower_bound",
    "bound_expectation",
    "bound_rows",
    "cases_needed",
    "certify",
    "certify_together",
    "certify_values",
    "clopper_pearson_lower_bound",
    "constrain_each_class",
    "constrain_each_context",
    "constrain_each_task",
    "empirical_bernstein_lower_bound",
    "evaluate_groups",
    "hoeffding_lower_bound",
    "register_measure",
    "skew_adjusted_t_lower_bound",
]
