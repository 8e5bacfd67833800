"""Rows of a partial order: all its upper sets where they are few, else a search.  Axes: B rows, K teachers, E edges."""

from __future__ import annotations

from typing import Any

from ._forest_search import project_forest_rows
from ._upper_set_kernels import project_upper_set_rows
from ._upper_sets import upper_sets

Array = Any


def project_partial_order_rows(v_BK: Array, edge_E2: Array, *rest: Any) -> int:
    """Project some rows with the orderings of edge_E2; the other arguments are those of ``project_forest_rows``."""
    sets = upper_sets(edge_E2, v_BK.shape[1])
    if sets is None:
        return project_forest_rows(v_BK, edge_E2, *rest)
    return project_upper_set_rows(v_BK, sets, *rest)
