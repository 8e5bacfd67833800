"""How a frontier is shown: as a picture, as a page, in words.

A layout says what is drawn, whatever the format (``_layout``); one figure is made of it (``_figure``) and written as
PNG, SVG or PDF, or embedded with the whole table in a page that needs no network (``_web_page``).
"""

from ._draw_frontier import draw_frontier
from ._frontier_summary import summarize_frontier
from ._layout import FRONT, KINDS, FrontierLayout, lay_out_frontier
from ._page_palette import PALETTE, format_palette

__all__ = [
    "FRONT",
    "KINDS",
    "PALETTE",
    "FrontierLayout",
    "draw_frontier",
    "format_palette",
    "lay_out_frontier",
    "summarize_frontier",
]
