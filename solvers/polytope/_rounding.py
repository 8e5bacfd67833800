"""Numbers for messages: short, and rounded to the side on which the advice still works."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

_DIGITS = 4


def round_up(value: float) -> str:
    """Return ``value`` in 4 digits, not below it."""
    return _rounded(value, ROUND_CEILING)


def round_down(value: float) -> str:
    """Return ``value`` in 4 digits, not above it."""
    return _rounded(value, ROUND_FLOOR)


def _rounded(value: float, rounding: str) -> str:
    # 12 digits first: 0.1 + 0.2 is meant as 0.3, not as something just above it
    tidy = Context(prec=12).create_decimal(Decimal(value))
    return f"{float(Context(prec=_DIGITS, rounding=rounding).create_decimal(tidy)):g}"
