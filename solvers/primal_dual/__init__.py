"""Primal-dual steps for ``min f  s.t.  g <= 0, h = 0`` inside anyone's own training loop.

    engine = PrimalDual(inequalities=1)
    for batch in data:
        f, g = ...                              # a scalar, and a vector of M values: g > 0 is a violation
        loss = engine.step(f, inequality=g)     # multipliers move first, then comes what to minimise
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    engine.multipliers                          # lambda >= 0, one price a constraint

or, with the problem as a function, ``engine.take(evaluate, optimizer)`` for each step.

Which method?  ``AugmentedLagrangian()``, the default, needs no tuning: its penalty is read off the first gradients.
``PIGain`` is the same controller written on the multipliers, as in nuPI.  ``Extragradient`` needs no penalty and two
evaluations a step.  ``PlainAscent`` and ``FixedPenalty`` are there to compare with: the first cycles on bilinear
problems, the second promises nothing.  One constraint a training example: pass ``index=``, or let a network price them
(``MultiplierNetwork``).
"""

from ._engine import PrimalDual
from ._methods import AugmentedLagrangian, DualMethod, Extragradient, FixedPenalty, PIGain, PlainAscent
from ._network import MultiplierNetwork

__all__ = [
    "AugmentedLagrangian",
    "DualMethod",
    "Extragradient",
    "FixedPenalty",
    "MultiplierNetwork",
    "PIGain",
    "PlainAscent",
    "PrimalDual",
]
