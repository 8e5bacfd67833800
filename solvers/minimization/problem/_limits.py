"""What a search may cost, and the best point that it has seen: what is handed back when that is spent."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np

from ._user_functions import Floats

FEASIBLE = 1e-6  # violation of scaled rows up to which points are compared by their objective


class LimitReached(Exception):
    """Ends a search whose evaluations or seconds are spent."""


@dataclass
class SearchLimits:
    """Evaluations and seconds, and the best point so far.

    Attributes:
        evaluations: How many the search may take, infinite for any number.
        seconds: How long it may take, infinite for any time.
        used: Evaluations so far.
        best_n: The point with the least objective among those that meet the rows, or with the least violation.
        best: Violation, and objective, of that point.
        began: When the search began.
    """

    evaluations: float = math.inf
    seconds: float = math.inf
    used: int = 0
    best_n: Floats | None = None
    best: tuple[float, float] = (math.inf, math.inf)
    began: float = field(default_factory=time.monotonic)

    def spend(self) -> None:
        """Count an evaluation; raise LimitReached where none is left."""
        if self.used >= self.evaluations or time.monotonic() - self.began > self.seconds:
            raise LimitReached
        self.used += 1

    def remember(self, x_n: Floats, f: float, violation_C: Floats) -> None:
        """Keep a point if it is the best so far; f in the user's units."""
        violation = float(np.abs(violation_C).max(initial=0.0))
        if not (np.isfinite(f) and np.isfinite(violation)):
            return
        value = max(violation, FEASIBLE), f
        if value < self.best:
            self.best_n, self.best = x_n.copy(), value
