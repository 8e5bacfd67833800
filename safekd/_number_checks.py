"""What counts as a number where one is asked for: numpy's do, truth values and text do not."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from .errors import InvalidInput


def is_whole(value: Any) -> bool:
    """Say whether ``value`` is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Say whether ``value`` is a real number, infinite ones and NaN included."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Say whether ``value`` is a real number, neither infinite nor NaN."""
    return is_number(value) and math.isfinite(value)


def require_seed(seed: Any, name: str = "seed") -> int:
    """Return a seed that every generator takes.

    Args:
        seed: A whole number, at least 0 and below 2^63.
        name: What messages call it.

    Raises:
        InvalidInput: It is no such number.
    """
    if not is_whole(seed) or not 0 <= seed < 2**63:
        raise InvalidInput(f"`{name}` is {seed!r}; wanted a whole number from 0 to 2**63 - 1.")
    return int(seed)
