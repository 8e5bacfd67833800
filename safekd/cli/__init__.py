"""The command line: ``safekd demo | project | train | frontier``.

Exit codes: 0 done, 1 the run ended without meeting its conditions, 2 bad input (one message, nothing written).
"""

from ._app import main

__all__ = ["main"]
