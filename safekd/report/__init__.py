"""Results as tables for the terminal, and as a page: numbers are measured, and what misses a requirement is shown so.

    write_report("runs/demo")       # one HTML file about a run, or about several; `safekd report`

``_run_tables`` has those of experiments: compared variants, teachers, their orderings, one run, a frontier, seeds.
``_tightening_table`` has the rounds of a tightening, ``_projection_table`` what became of a file of weights,
``page/`` the report.

Names are imported when first used: the table of a projected file needs nothing of what experiments need.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
