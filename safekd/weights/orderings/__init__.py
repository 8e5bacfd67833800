"""Who must not count less than whom: orderings given, measured, and as they hold at each position of a batch.

``ScaleOrderings`` are the pairs of one scale; ``orderings_from`` draws them from evidence where a difference is
significant; ``row_orders`` settles which hold at a position, where scales meet and may disagree, and projects onto
them.
"""

from ._measured_orderings import Comparison, MeasuredOrderings, orderings_from
from ._position_orderings import Metric, RowOrders, ordering_violations, row_orders
from ._scale_orderings import ScaleOrderings, merged, reconciled, require_no_circle, require_polytope, require_room

__all__ = [
    "Comparison",
    "MeasuredOrderings",
    "Metric",
    "RowOrders",
    "ScaleOrderings",
    "merged",
    "ordering_violations",
    "orderings_from",
    "reconciled",
    "require_no_circle",
    "require_polytope",
    "require_room",
    "row_orders",
]
