"""A run, or several, as one HTML file: no network, no script needed to read it, light or dark, on paper too.

    write_report(["runs/demo"], "report.html")

In this order: ``_read_run`` reads a run folder and checks every file against its manifest; ``sections/`` turns parts of
it into tables and figures, ``drawing/`` draws these as SVG; ``_write_report`` puts them into ``_report_frame``.
``_elements`` is how all of it is built: text is data, and nothing but the frame is written as HTML.
"""

from ._write_report import write_report

__all__ = ["write_report"]
