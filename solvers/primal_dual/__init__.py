"""Primal-dual steps for ``min f  s.t.  g <= 0, h = 0`` inside anyone's own training loop.

    engine = PrimalDual(inequalities=1)
    for batch in data:
        f, g = ...                              # a scalar, and a vector of M values: g > 0 is a violation
        loss = engine.step(f, inequality=g)     # multipliers move first, then comes what to minimise
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    engine.multipliers                          # lambda >= 0, one price a constraint

``AugmentedLagrangian`` (the default) damps the oscillation that ``PlainAscent`` shows on bilinear problems.
"""

from ._engine import PrimalDual
from ._methods import AugmentedLagrangian, DualMethod, FixedPenalty, PlainAscent

__all__ = ["AugmentedLagrangian", "DualMethod", "FixedPenalty", "PlainAscent", "PrimalDual"]
