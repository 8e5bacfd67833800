"""Primal-dual steps for ``min f  s.t.  g <= 0, h = 0`` inside anyone's own training loop.

    engine = PrimalDual(inequalities=1)
    for batch in data:
        f, g = ...                              # a scalar, and a vector of M values: g > 0 is a violation
        loss = engine.step(f, inequality=g)     # multipliers move first, then comes what to minimize
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    engine.multipliers                          # lambda >= 0, one a constraint

or, with the problem as a function, ``engine.step_with(evaluate, optimizer)`` for each step.

What happens in a step, in this order: rows are checked and joined (``_row_values``), the kept state of each row is
looked up (``_engine_state``), its multiplier scale is read where that is due (``_multiplier_scale``), its gain measured
(``_gains``), and a dual method moves the multipliers (``_methods``): of whole arrays (``_array_rows``), or, of few rows
on the processor, number by number (``_few_rows``).

Which method?  ``PIGain()``, the default, needs no tuning: its gain is measured in the multiplier at which the gradients
of constraint and objective are equally large.  ``AugmentedLagrangian`` writes the same controller with the proportional
part outside of the multiplier.  ``PlainAscent`` and ``FixedPenalty`` are there to compare with: the first cycles on
bilinear problems, the second promises nothing.  ``DUAL_METHODS`` holds all of them by name.  One constraint a training
example: pass ``index=``, or let a network give the multipliers (``MultiplierNetwork``).  In a step of several
microbatches or processes, whose rows are sums without a graph, scales come from ``GradientSums``.
"""

from ._engine import PrimalDual
from ._gradient_sums import GradientSums
from ._methods import DUAL_METHODS, AugmentedLagrangian, DualInputs, DualMethod, FixedPenalty, PIGain, PlainAscent
from ._multiplier_network import MultiplierNetwork
from ._multiplier_scale import MultiplierScales, combine_scales

__all__ = [
    "DUAL_METHODS",
    "AugmentedLagrangian",
    "DualInputs",
    "DualMethod",
    "FixedPenalty",
    "GradientSums",
    "MultiplierNetwork",
    "MultiplierScales",
    "PIGain",
    "PlainAscent",
    "PrimalDual",
    "combine_scales",
]
