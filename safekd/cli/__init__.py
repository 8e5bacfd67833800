"""The command line: ``safekd demo | project | audit | train | frontier | verify | cache``.

Exit codes: 0 done, 1 the run ended without meeting its conditions or the audit found a violation, 2 bad input, or a
fault of safekd itself (one message, nothing written), 130 stopped.
"""

from ._app import main

__all__ = ["main"]
