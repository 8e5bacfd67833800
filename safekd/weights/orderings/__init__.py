"""Who must not count less than whom: orderings given, measured, and as they hold at each position of a batch.

``ScaleOrderings`` are the pairs of one scale; ``infer_orderings`` draws them from evidence where a difference is
significant; ``resolve_orderings`` settles which hold at a position, where scales meet and may disagree, and projects.
"""

from ._measured_orderings import Comparison, MeasuredOrderings, infer_orderings
from ._position_orderings import Metric, PositionOrderings, find_ordering_violations, resolve_orderings
from ._scale_orderings import (
    ScaleOrderings,
    merge_orderings,
    reconcile_orderings,
    require_compatible_orderings,
    require_no_cycle,
    require_polytope,
)

__all__ = [
    "Comparison",
    "MeasuredOrderings",
    "Metric",
    "PositionOrderings",
    "ScaleOrderings",
    "find_ordering_violations",
    "infer_orderings",
    "merge_orderings",
    "reconcile_orderings",
    "require_compatible_orderings",
    "require_no_cycle",
    "require_polytope",
    "resolve_orderings",
]
