"""A search for jumps of weights along lines through the signals that they depend on.

``MovableSignals`` takes signals apart into what can be moved; ``_probe_lines`` draws lines on which rules jump if they
do; ``search_line`` halves intervals where weights change most; ``judge_continuity`` judges what was seen along all
lines.
"""

from ._continuity_findings import judge_continuity
from ._jump_search import JumpSearchSettings, Line, search_line
from ._movable_signals import MovableSignals
from ._probe_lines import Weights

__all__ = ["JumpSearchSettings", "Line", "MovableSignals", "Weights", "judge_continuity", "search_line"]
