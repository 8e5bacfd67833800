"""Targets and counts as the caller gives them; refused in words where they cannot be used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import InvalidInput

Targets = int | Sequence[float]


def check_targets(targets: Any) -> int | list[float]:
    """Return how many targets are asked for, or the targets in ascending order, repeated ones included.

    Raises InvalidInput for fewer than two, for none, and for what is no finite number.
    """
    if isinstance(targets, bool) or targets is None or isinstance(targets, (str, bytes, float)):
        raise InvalidInput(f"`targets` is {targets!r}; wanted how many (at least 2), or a sequence of numbers.")
    if isinstance(targets, (int, np.integer)):
        if targets < 2:
            raise InvalidInput(f"`targets` is {targets}; wanted at least 2: both ends, or a sequence of numbers.")
        return int(targets)
    if isinstance(targets, torch.Tensor):
        targets = targets.detach().cpu().tolist()
    try:
        given = list(targets)
    except TypeError as cause:
        raise InvalidInput(f"`targets` is {targets!r}; wanted how many, or a sequence of numbers.") from cause
    if not given:
        raise InvalidInput("`targets` is empty; give at least one level of `constrained`, or how many.")
    values = []
    for i, value in enumerate(given):
        try:
            number = math.nan if isinstance(value, (str, bytes)) else float(value)
        except (TypeError, ValueError) as cause:
            raise InvalidInput(f"`targets[{i}]` is {value!r}; wanted a number.") from cause
        if not math.isfinite(number):
            raise InvalidInput(f"`targets[{i}]` is {value!r}; wanted a finite number.")
        values.append(number)
    return sorted(values)


def check_counts(budget: int | None, starts: int, steps: int, tolerance: float, smallest_gap: float) -> None:
    """Raise InvalidInput for counts and tolerances that cannot be used."""
    for name, value in (("budget", budget), ("starts", starts), ("steps", steps)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
            raise InvalidInput(f"`{name}` is {value!r}; wanted a whole number, at least 1.")
    if budget is not None and budget < 4:
        raise InvalidInput(f"`budget` is {budget}; the two ends alone may take 4 solves.")
    for name, size in (("tolerance", tolerance), ("smallest_gap", smallest_gap)):
        if not (isinstance(size, (int, float)) and size > 0 and math.isfinite(size)):
            raise InvalidInput(f"`{name}` is {size!r}; wanted a finite number above 0.")
