"""Softening: the same distribution, flatter, from its probabilities alone; what a teacher's logits are not needed for.

    power      p^(1/T) / Z: temperature as everybody knows it
    uniform    (1/T) p + (1 - 1/T) / V: mixing with the uniform distribution

``SOFTENINGS`` holds them by these names.  Both take dense distributions and tables of the most probable classes with
a tail bucket; T is one number, or one a teacher or position.  ``audit_softening`` looks for what refutes the five
axioms of such an operator.
"""

from collections.abc import Mapping

from ._audit_softening import audit_softening
from ._softening_operator import PowerSoftening, Softening, UniformMixing

SOFTENINGS: Mapping[str, type[Softening]] = {"power": PowerSoftening, "uniform": UniformMixing}

__all__ = ["SOFTENINGS", "PowerSoftening", "Softening", "UniformMixing", "audit_softening"]
