"""What a projection did to the weights of a file.  Axes: N rows, K teachers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

_UNMOVED = 1e-12  # Euclidean distance that rounding may cost


@dataclass
class ProjectionSummary:
    """Counted while rows go by.

    teachers: columns.  rows: how many there were.  moved: how many of them moved further than rounding does.
    distance: the sum of their Euclidean distances, furthest the longest of them.  before, after: the lightest and
    heaviest weight of each teacher, a pair of lists (K,).
    """

    teachers: tuple[str, ...]
    rows: int = 0
    moved: int = 0
    distance: float = 0.0
    furthest: float = 0.0
    before: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    after: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def add(self, raw_NK: Floats, w_NK: Floats) -> None:
        """Count some rows."""
        far_N = np.sqrt(((w_NK - raw_NK) ** 2).sum(axis=1))
        self.rows += len(far_N)
        self.moved += int((far_N > _UNMOVED).sum())
        self.distance += float(far_N.sum())
        self.furthest = max(self.furthest, float(far_N.max()))
        self.before, self.after = _widened(self.before, raw_NK), _widened(self.after, w_NK)


def _widened(seen: tuple[list[float], list[float]], x_NK: Floats) -> tuple[list[float], list[float]]:
    low_K, high_K = x_NK.min(axis=0), x_NK.max(axis=0)
    if not seen[0]:
        return low_K.tolist(), high_K.tolist()
    return np.minimum(seen[0], low_K).tolist(), np.maximum(seen[1], high_K).tolist()
