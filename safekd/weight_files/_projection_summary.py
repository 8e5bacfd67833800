"""What a projection did to the weights of a file.  Axes: N rows, K teachers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass
class ProjectionSummary:
    """Counted while rows go by.

    Attributes:
        teachers: Columns.
        rows: How many rows there were.
        moved: How many of them moved further than ``rounding``.
        distance: The sum of their Euclidean distances.
        furthest: The longest of them.
        before: The lightest and the heaviest weight of each teacher before projection, two lists (K,).
        after: The same after it.
        rounding: Euclidean distance that rounding may cost: some thousand units in the last place of a weight near 1.
            ``test_weight_files`` counts by the same number.
    """

    teachers: tuple[str, ...]
    rows: int = 0
    moved: int = 0
    distance: float = 0.0
    furthest: float = 0.0
    before: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    after: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    rounding: float = 1e-12

    def add(self, raw_NK: Floats, w_NK: Floats) -> None:
        """Count some rows.

        Args:
            raw_NK: Their weights before projection.
            w_NK: Their weights after it.
        """
        with np.errstate(over="ignore"):
            far_N = np.sqrt(((w_NK - raw_NK) ** 2).sum(axis=1))
            if not np.isfinite(far_N).all():  # the squares of scores beyond 1e154
                gap_NK = abs(w_NK - raw_NK)
                most_N1 = np.maximum(gap_NK.max(axis=1, keepdims=True), 1.0)
                far_N = most_N1[:, 0] * np.sqrt(((gap_NK / most_N1) ** 2).sum(axis=1))
            self.distance += float(far_N.sum())
        self.rows += len(far_N)
        self.moved += int((far_N > self.rounding).sum())
        self.furthest = max(self.furthest, float(far_N.max()))
        self.before, self.after = _widen_range(self.before, raw_NK), _widen_range(self.after, w_NK)


def _widen_range(range_so_far: tuple[list[float], list[float]], x_NK: Floats) -> tuple[list[float], list[float]]:
    low_K, high_K = x_NK.min(axis=0), x_NK.max(axis=0)
    if not range_so_far[0]:
        return low_K.tolist(), high_K.tolist()
    return np.minimum(range_so_far[0], low_K).tolist(), np.maximum(range_so_far[1], high_K).tolist()
