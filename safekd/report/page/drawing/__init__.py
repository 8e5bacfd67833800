"""Figures as SVG, each with its table: curves (``_curves``) and strips of points or boxes (``_strips``).

``_axes`` has scales and ticks, ``_figure_frame`` the legend, the texts for readers who do not see it, and the table.
"""

from ._curves import Curve, CurveChart, draw_curves, thin_line
from ._figure_frame import BOUND, SHAPES, LegendEntry
from ._strips import Strip, StripRow, draw_strips

__all__ = [
    "BOUND",
    "SHAPES",
    "Curve",
    "CurveChart",
    "LegendEntry",
    "Strip",
    "StripRow",
    "draw_curves",
    "draw_strips",
    "thin_line",
]
