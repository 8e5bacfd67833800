"""What counts as a number where one is asked for: numpy's do, truth values and text do not."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def is_whole(value: Any) -> bool:
    """Say whether ``value`` is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Say whether ``value`` is a real number, infinite ones and NaN included."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Say whether ``value`` is a real number, neither infinite nor NaN."""
    return is_number(value) and math.isfinite(value)
