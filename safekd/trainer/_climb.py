"""In which order thresholds are tried, and which one is kept: the search alone, whatever trains and judges.

Only "it cleared" or "it did not" comes back from a look, never by how much, and where the ladder stands depends on
training data alone.  So the student of each rung is a function of the training data:

    up      rung 1, 2, ... until one clears, each at level 1 - alpha / looks: that one clears wrongly has a probability
            of at most alpha in all (Bonferroni)
    back    from the rung that cleared towards the one before it, at the same level, until one does not clear: at no
            cost, since they are tried in an order fixed beforehand and the first failure ends it (fixed-sequence test,
            Maurer, Hothorn and Lehmacher 1995)

A place is 0 at what was asked for and 1 at the highest threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """What became of one rung.

    cleared: what the look said.  reached: the place of what training measured, above the rung's own while the
    constraint is slack.  stuck: whether higher rungs cannot be trained.
    """

    cleared: bool
    reached: float = 0.0
    stuck: bool = False


def climb(looks: int, back: int, attempt: Callable[[float], Rung]) -> int | None:
    """Try places on the ladder and return the number of the attempt to keep, from 0; None if none cleared.

    looks: rungs from 0 to 1; those after the first share what is left above the place that training reaches by itself.
    back: how many places between two rungs are tried on the way back.  attempt: what trains and looks.
    """
    place = base = below = 0.0
    for number in range(looks):
        if number:
            below, place = max(place, base), min(1.0, base + (1 - base) * number / (looks - 1))  # rounding included
        tried = attempt(place)
        if tried.cleared:
            return number + _back(place, below, back if number else 0, attempt)
        if number == 0:
            base = max(tried.reached, 0.0)
        if tried.stuck or base >= 1:
            return None
    return None


def _back(place: float, below: float, back: int, attempt: Callable[[float], Rung]) -> int:
    """Return how many steps back cleared one after the other."""
    for step in range(1, back + 1):
        if not attempt(place + (below - place) * step / (back + 1)).cleared:
            return step - 1
    return back


def between(asked: float, highest: float, place: float) -> float:
    """Return the threshold at ``place`` in [0, 1] from ``asked`` to ``highest``, evenly spaced in log-odds."""
    if place <= 0:
        return asked
    return 1 / (1 + math.exp(-((1 - place) * logit(asked) + place * logit(highest))))


def logit(p: float) -> float:
    """Return the log-odds of ``p`` in (0, 1)."""
    return math.log(p) - math.log1p(-p)
