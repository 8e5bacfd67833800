"""Isotonic regression on any partial order, compiled.

``project_partial_order_rows`` lists the order's upper sets (``_upper_sets``) and, where they are few, looks at all of
them (``_upper_set_kernels``); else it searches (``_forest_search``).  Both end in a list of blocks (``_block_list``).
"""

from ._upper_set_kernels import project_partial_order_rows

__all__ = ["project_partial_order_rows"]
