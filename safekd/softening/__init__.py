"""Softening: the same distribution, flatter, from its probabilities alone; what a teacher's logits are not needed for.

    power      p^(1/T) / Z: temperature as everybody knows it
    uniform    (1/T) p + (1 - 1/T) / V: mixing with the uniform distribution

``SOFTENINGS`` holds them by these names.  Both take dense distributions and tables of the most probable classes with
a tail bucket; T is one number, or one a teacher or position.  ``audit_softening`` looks for what refutes the five
axioms of such an operator.

``Temperatures`` says which temperature each teacher has where: by teacher, position, task and context.
``TemperatureSchedule`` moves one over the steps of a run, and ``audit_schedule`` judges one.  A trainer takes both with
``pool=kd.pooling.SoftenedPool(...)``.
"""

from ._audit_softening import audit_softening
from ._named_softenings import SOFTENINGS
from ._softening_operator import PowerSoftening, Softening, UniformMixing
from ._temperature_schedules import Schedule, TemperatureSchedule, audit_schedule
from ._temperatures import SoftenedSignals, Temperatures

__all__ = [
    "SOFTENINGS",
    "PowerSoftening",
    "Schedule",
    "SoftenedSignals",
    "Softening",
    "TemperatureSchedule",
    "Temperatures",
    "UniformMixing",
    "audit_schedule",
    "audit_softening",
]
