"""A search for jumps of weights along lines through the readings that they depend on.

``Readings`` takes signals apart into what can be moved; ``_probe_lines`` draws lines on which rules jump if they do;
``look_along`` halves intervals where weights change most; ``continuity_findings`` judges what was seen along all lines.
"""

from ._continuity_findings import continuity_findings
from ._jump_search import Line, Precision, look_along
from ._movable_signals import Readings
from ._probe_lines import Weights

__all__ = ["Line", "Precision", "Readings", "Weights", "continuity_findings", "look_along"]
