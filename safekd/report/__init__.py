"""Results as tables for the terminal: numbers are measured, and a requirement that is missed is shown in red.

``_run_tables`` has those of experiments: compared variants, teachers, their orderings, one run, a frontier, seeds.
``_tightening_table`` has the rounds of a tightening, ``_projection_table`` what became of a file of weights.

Names are imported when first used: the table of a projected file needs nothing of what experiments need.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
