"""What rules look at: the signals of a batch, and what was measured of the teachers beforehand.

``TeacherEvidence`` comes first, once a run; ``Signals`` puts it beside a batch's distributions, checks that shapes fit,
and works out on first use what a rule asks for: entropies, losses a task, safety in a context, critical positions.
"""

from ._batch_signals import ORDERED_SCALES, OrderedScale, Signals
from ._teacher_distributions import average_rows, compute_disagreement, compute_variance, soften
from ._teacher_evidence import TeacherEvidence

__all__ = [
    "ORDERED_SCALES",
    "OrderedScale",
    "Signals",
    "TeacherEvidence",
    "average_rows",
    "compute_disagreement",
    "compute_variance",
    "soften",
]
