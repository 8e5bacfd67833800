"""What safety costs: the Pareto frontier between distillation loss and safety.

    frontier = trace_frontier(make_trainer, train, validation, targets=11, epochs=1000)
    frontier.table                          # one row a target, with a status: nothing is dropped
    print(frontier)                         # what was traced, and what safety costs
    frontier.choose(safety=0.97).student    # the cheapest one that is safe enough
    frontier.to_csv("frontier.csv"); frontier.plot("frontier.html"); frontier.hypervolume(reference=(1.0, 0.0))

In this order: ``sweep/`` plans runs and trains them, ``store/`` keeps each trained point on disk, ``table/`` has a row
a target, annotated, and answers questions, ``view/`` draws it; ``verify`` evaluates stored students again, and
``verify_files`` compares files with the hashes beside them.
"""

from ._student_frontier import Frontier
from ._trace_students import trace_frontier
from ._verify_files import FilesReport, verify_files
from ._verify_students import VerifyReport, verify
from .table import COLUMNS_DOC, FrontierPoint

__all__ = [
    "COLUMNS_DOC",
    "FilesReport",
    "Frontier",
    "FrontierPoint",
    "VerifyReport",
    "trace_frontier",
    "verify",
    "verify_files",
]
