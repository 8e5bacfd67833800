"""What several teachers are worth together, measured on a user's own data.

    report = ensemble_report(teachers, validation)      # prints in a screen: print(report)
    report.drop, report.recommended_pool                # whom to leave out, and which pool
    report.plot("ensemble.svg")

``measure_errors`` has the errors' bias and covariance, and what follows for linear pools: ``predict_variance``,
``count_effective``, ``attenuate_bias``, ``minimize_error``.  ``measure_jensen_gap`` and ``bound_log_loss`` are about
the log-loss, ``measure_safety`` about safety: what Corollary VIII.7 promises a student, and how far a pool is safer
than its least safe teacher.  The report reads a split once and asks all of them.
"""

from ._ensemble_figures import PoolFigures, TeacherFigures, VarianceFigures
from ._ensemble_report import EnsembleReport
from ._error_statistics import ErrorStatistics, ErrorSums, measure_errors
from ._loss_bounds import bound_log_loss, find_exponent, measure_jensen_gap
from ._make_report import ensemble_report
from ._paired_means import PairedMean, compare_means
from ._safety_of_pools import SafetyOfPool, measure_safety

__all__ = [
    "EnsembleReport",
    "ErrorStatistics",
    "ErrorSums",
    "PairedMean",
    "PoolFigures",
    "SafetyOfPool",
    "TeacherFigures",
    "VarianceFigures",
    "bound_log_loss",
    "compare_means",
    "ensemble_report",
    "find_exponent",
    "measure_errors",
    "measure_jensen_gap",
    "measure_safety",
]
