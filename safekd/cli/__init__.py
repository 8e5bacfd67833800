"""The command line: ``safekd demo | project | audit | train | predict | certify | export | frontier | verify | cache``.

Exit codes: 0 done, 1 the run ended without meeting its conditions or a check found a violation, 2 bad input, or a
fault of safekd itself (one message, nothing written), 3 no student can meet what is asked for, 4 interrupted.
"""

from ._app import main

__all__ = ["main"]
