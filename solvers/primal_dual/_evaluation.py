"""What a user's evaluation of a problem may return, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidInput

_VALUES = ("objective", "inequality", "equality")

Evaluate = Callable[[], Mapping[str, Any] | tuple[Any, ...]]


def by_name(values: Mapping[str, Any] | tuple[Any, ...]) -> dict[str, Any]:
    """Return what an evaluation gave as arguments of ``step``."""
    if isinstance(values, Mapping):
        return dict(values)
    if not isinstance(values, tuple) or not 1 <= len(values) <= 3:
        raise InvalidInput(
            f"`evaluate` returned {type(values).__name__}; wanted (f, g), (f, g, h) or a dictionary of what step takes."
        )
    return dict(zip(_VALUES, values, strict=False))
