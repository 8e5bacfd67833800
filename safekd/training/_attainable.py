"""Which values a counted measure can take.

The average of ``count`` zeros and ones is a multiple of 1/count, so asking for 0.75 of ten examples is asking for 0.8.
Posed so, the multiplier has a value at which it rests; posed at 0.75 it would rise below and fall above for ever.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor

from ..safety import Constraint, SafetyConstraint


def is_plain(rule: Constraint) -> TypeGuard[SafetyConstraint]:
    """Say whether a constraint is one average, at least so high, over examples that all count alike."""
    return isinstance(rule, SafetyConstraint) and not rule.is_equality and rule.mix is None and rule.worst is None


def attainable(rule: Constraint, count: Tensor) -> Tensor:
    """Return the least value at or above the threshold that ``count`` examples can average to, a float64 scalar.

    The threshold itself where the measure is not counted, or the constraint is more than one average.
    """
    wanted = torch.full_like(count, rule.required, dtype=torch.float64)
    if not is_plain(rule) or not rule.measure.binary:
        return wanted
    return torch.ceil(wanted * count - 1e-9) / count.clamp_min(1)
