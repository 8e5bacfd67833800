"""What safety costs: the Pareto frontier between distillation loss and safety.

frontier = trace_frontier(make_trainer, train, audit, targets=11, epochs=1000)
frontier.table                      # one row a target, with a status: nothing is dropped
frontier.to_csv("frontier.csv"); frontier.plot("frontier.png"); frontier.hypervolume(reference=(1.0, 0.0))
"""

from ._frontier import COLUMNS_DOC, Frontier
from ._sweep import trace_frontier

__all__ = ["COLUMNS_DOC", "Frontier", "trace_frontier"]
