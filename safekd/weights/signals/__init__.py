"""What rules look at: the readings of a batch, and what was measured of the teachers beforehand.

``Evidence`` comes first, once a run; ``Signals`` puts it beside a batch's distributions, checks that shapes fit, and
works
out on first use what a rule asks for: entropies, losses a task, safety in a context, where positions are critical.
"""

from ._batch_signals import ORDERED_SCALES, OrderedScale, Signals, compute_variance, soften
from ._teacher_evidence import Evidence

__all__ = ["ORDERED_SCALES", "Evidence", "OrderedScale", "Signals", "compute_variance", "soften"]
