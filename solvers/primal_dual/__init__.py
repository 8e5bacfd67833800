"""Primal-dual steps for ``min f  s.t.  g <= 0, h = 0`` inside anyone's own training loop.

    engine = PrimalDual(inequalities=1)
    for batch in data:
        f, g = ...                              # a scalar, and a vector of M values: g > 0 is a violation
        loss = engine.step(f, inequality=g)     # multipliers move first, then comes what to minimize
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    engine.multipliers                          # lambda >= 0, one a constraint

or, with the problem as a function, ``engine.step_with(evaluate, optimizer)`` for each step.

Which method?  ``PIGain()``, the default, needs no tuning: its gain is measured in the multiplier at which a constraint
pulls as strongly as the objective (``_multiplier_scale``, ``_gains``).  ``AugmentedLagrangian`` writes the same
controller with the proportional part outside of the multiplier.  ``PlainAscent`` and ``FixedPenalty`` are there to
compare with: the first cycles on bilinear problems, the second promises nothing.  One constraint a training example:
pass ``index=``, or let a network give the multipliers (``MultiplierNetwork``).
"""

from ._engine import PrimalDual
from ._methods import AugmentedLagrangian, DualMethod, FixedPenalty, PIGain, PlainAscent
from ._network import MultiplierNetwork

__all__ = [
    "AugmentedLagrangian",
    "DualMethod",
    "FixedPenalty",
    "MultiplierNetwork",
    "PIGain",
    "PlainAscent",
    "PrimalDual",
]
