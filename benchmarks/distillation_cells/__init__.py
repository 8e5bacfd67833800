"""Constrained distillation in many small cells: a comparison that no single setting was chosen for.

What happens, in this order:

1. ``_cells``       names the cells: twelve fixed ones that span every value, and others drawn by a seed
2. ``_tasks``       data, and the stored probabilities of pooled scikit-learn teachers
3. ``_students``    three kinds of student, small enough for a step to cost a millisecond or two
4. ``_thresholds``  two reference runs set the thresholds, before any contender runs
5. ``_problem``     the cell as a problem with batches, the same initial student and batch order for everybody
6. ``_contenders``  who takes part: ours in a loop, the peers, penalties, and a multiplier moved by hand
7. ``_judge``       reads loss, safety and KKT residuals over the whole split, whoever trains
8. ``_run``         one contender through its steps, looked at now and then; ``_trainer`` does so for our trainer
9. ``_figures``     makes one row of numbers of the looks; ``_summary`` compares rows, ``_report`` writes them
"""

from ._cells import FIXED, Cell, choose, draw_cells
from ._figures import Row, as_csv
from ._report import report_sections
from ._work import Piece, measure_piece, plan

__all__ = [
    "FIXED",
    "Cell",
    "Piece",
    "Row",
    "as_csv",
    "choose",
    "draw_cells",
    "measure_piece",
    "plan",
    "report_sections",
]
