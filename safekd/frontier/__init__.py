"""What safety costs: the Pareto frontier between distillation loss and safety.

frontier = trace_frontier(make_trainer, train, validation, targets=11, epochs=1000)
frontier.table                      # one row a target, with a status: nothing is dropped
print(frontier)                     # what was traced, and what safety costs
frontier.at(safety=0.97).student    # the cheapest one that is safe enough
frontier.to_csv("frontier.csv"); frontier.plot("frontier.html"); frontier.hypervolume(reference=(1.0, 0.0))
"""

from ._frontier import Frontier
from ._point import FrontierPoint
from ._schema import COLUMNS_DOC
from ._sweep import trace_frontier
from ._verify import VerifyReport, verify

__all__ = ["COLUMNS_DOC", "Frontier", "FrontierPoint", "VerifyReport", "trace_frontier", "verify"]
