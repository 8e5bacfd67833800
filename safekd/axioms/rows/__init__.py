"""Weights judged row by row, without their rule: any number of rows, in constant memory.

``RowAudit`` reads chunks and works out what is wrong in each row; ``_violation_tally`` counts it and keeps the worst
row; ``_row_messages`` puts the counts into findings, with evidence in words.
"""

from ._row_audit import RowAudit
from ._row_messages import suggest_remedy

__all__ = ["RowAudit", "suggest_remedy"]
