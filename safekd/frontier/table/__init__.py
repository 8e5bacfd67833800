"""The table of a frontier: a row a target.

Columns (``COLUMNS_DOC``); rows are annotated (``annotate_rows``), then asked which to choose (``FrontierTable``) and
how good they are (``RatedFrontier``), and written to files that read back to the last bit (``write_frontier``).
"""

from ._annotate_rows import ANNOTATIONS, annotate_rows
from ._frontier_columns import (
    COLUMNS_DOC,
    NUMBER,
    SCHEMA_VERSION,
    find_column_kinds,
    list_setting_columns,
    split_slices,
)
from ._frontier_csv import read_frontier, write_frontier
from ._frontier_point import FrontierPoint
from ._frontier_quality import RatedFrontier
from ._frontier_table import FrontierTable

__all__ = [
    "ANNOTATIONS",
    "COLUMNS_DOC",
    "NUMBER",
    "SCHEMA_VERSION",
    "FrontierPoint",
    "FrontierTable",
    "RatedFrontier",
    "annotate_rows",
    "find_column_kinds",
    "list_setting_columns",
    "read_frontier",
    "split_slices",
    "write_frontier",
]
