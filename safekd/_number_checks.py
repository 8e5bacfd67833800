"""What counts as a number where one is asked for: numpy's do, truth values and text do not."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def is_whole(value: Any) -> bool:
    """Say whether it is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Say whether it is a real number, not finite ones included."""
    return isinstance(value, Real) and not isinstance(value, bool)
