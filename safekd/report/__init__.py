"""Results as tables for people: what was compared, what was asked, what was found."""

from ._tables import (
    comparison,
    fit_summary,
    frontier_table,
    orderings_table,
    projection_summary,
    seeds_table,
    teachers_table,
)

__all__ = [
    "comparison",
    "fit_summary",
    "frontier_table",
    "orderings_table",
    "projection_summary",
    "seeds_table",
    "teachers_table",
]
