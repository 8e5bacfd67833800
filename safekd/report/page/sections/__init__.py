"""The parts of a report: each takes a run, or several, and returns a section of the page, or None where it has nothing.

From above: the verdict (``_verdict``), several runs side by side (``_comparison``), safety against thresholds
(``_safety``), how the run went (``_course``), how thresholds were raised (``_tightening``), weights of teachers
(``_weight_figures``), the frontier (``_frontier_figure``), axioms and ensemble (``_ensemble``), and where all of it
comes from (``_origin``).
"""

from ._comparison import compare_runs
from ._course import show_course
from ._ensemble import show_axioms, show_ensemble
from ._frontier_figure import show_frontier_figure
from ._origin import show_origin
from ._safety import show_safety
from ._tightening import show_tightening
from ._verdict import show_verdict
from ._weight_figures import show_weights

__all__ = [
    "compare_runs",
    "show_axioms",
    "show_course",
    "show_ensemble",
    "show_frontier_figure",
    "show_origin",
    "show_safety",
    "show_tightening",
    "show_verdict",
    "show_weights",
]
